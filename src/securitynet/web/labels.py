"""How pages write things: names of codes, numbers, and intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

from securitynet.catalog.codebook import load_codebook
from securitynet.web.drawing import format_number
from securitynet.web.search import Choice


def write_label(name: str) -> str:
    """Write the name of a code or of a measured value: ``task``, ``stealing accuracy``."""
    if name in load_codebook():
        return load_codebook()[name].label
    return name.replace(".", " ").replace("auxiliary=", "with ").replace("surrogate=", "surrogate ")


def write_value(value: Any, name: str = "") -> str:
    """Write a code's value."""
    if value is None or value in ("", (), []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    info = load_codebook().get(name)
    if isinstance(value, float) and info is not None and info.unit == "share":
        return f"{100 * value:.1f}%"
    if isinstance(value, int):
        form = info.number_format if info is not None else "grouped"
        return format_number(value) if form == "short" else f"{value:,}" if form == "grouped" else str(value)
    if isinstance(value, dict):
        return "; ".join(f"{key} {write_value(item)}" for key, item in value.items())
    return format_number(value) if isinstance(value, float) else str(value)


def write_measured(value: float) -> str:
    """Write a measured value, with three decimals where it is a share or a difference of shares."""
    return f"{value:.3f}".replace("-", "−") if abs(value) < 10 else format_number(value)


def check_link(text: str | None) -> str | None:
    """Return an address that a browser may open, http or https; None for any other."""
    return text if text and text.startswith(("https://", "http://")) else None


def join_known(*parts: object) -> str:
    """Join the parts that are known on one line."""
    return " · ".join(str(part) for part in parts if part)


def mark_code(text: str) -> Markup:
    """Mark what stands in backticks as code."""
    parts = str(text).split("`")
    return Markup().join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def render_choices(name: str, several: Iterable[Choice]) -> Markup:
    """Render the check boxes of a facet."""
    code = escape(name)
    return Markup(
        "\n".join(
            f'<li><label><input type="checkbox" name="{code}" value="{value}"{" checked" if one.chosen else ""}> '
            f'<span class="value">{value}</span> <span class="count">{one.count:,}</span></label></li>'
            for one, value in ((one, escape(one.value)) for one in several)
        )
    )


GLOBALS: dict[str, Any] = {
    "label": write_label,
    "shown": write_value,
    "measured": write_measured,
    "thousands": "{:,}".format,
    "short": format_number,
    "dotted": join_known,
    "choices": render_choices,
    "with_code": mark_code,
    "safe_link": check_link,
    "codebook": load_codebook,
}
