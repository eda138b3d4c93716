"""How pages write things: names of codes, numbers, and intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

from securitynet.catalog.codebook import codebook
from securitynet.web.drawing import format_number
from securitynet.web.search import Choice


def label(name: str) -> str:
    """A code or a measured name, as it is read: ``task type``, ``stealing accuracy``."""
    if name in codebook():
        return codebook()[name].label
    return name.replace(".", " ").replace("auxiliary=", "with ").replace("surrogate=", "surrogate ")


def shown(value: Any, name: str = "") -> str:
    """A code's value in words."""
    if value is None or value in ("", (), []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    info = codebook().get(name)
    if isinstance(value, float) and info is not None and info.unit == "share":
        return f"{100 * value:.1f}%"
    if isinstance(value, int):
        form = info.number_format if info is not None else "grouped"
        return format_number(value) if form == "short" else f"{value:,}" if form == "grouped" else str(value)
    if isinstance(value, dict):
        return "; ".join(f"{key} {shown(item)}" for key, item in value.items())
    return format_number(value) if isinstance(value, float) else str(value)


def measured(value: float) -> str:
    """A measured value, with three decimals where it is a share or a difference of shares."""
    return f"{value:.3f}".replace("-", "−") if abs(value) < 10 else format_number(value)


def thousands(count: int) -> str:
    """A count."""
    return f"{count:,}"


def safe_link(text: str | None) -> str | None:
    """An address that a browser may open: only http and https."""
    return text if text and text.startswith(("https://", "http://")) else None


def dotted(*parts: object) -> str:
    """What is known of these, on one line."""
    return " · ".join(str(part) for part in parts if part)


def with_code(text: str) -> Markup:
    """A description, with what stands in backticks as code."""
    parts = str(text).split("`")
    return Markup().join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def choices(name: str, several: Iterable[Choice]) -> Markup:
    """Values of a facet to tick; written here, for a page has fifty of them."""
    return Markup("\n").join(
        Markup(
            f'<li><label><input type="checkbox" name="{escape(name)}" value="{escape(one.value)}"'
            f'{" checked" if one.chosen else ""}> <span class="value">{escape(one.value)}</span> '
            f'<span class="count">{one.count:,}</span></label></li>'
        )
        for one in several
    )


GLOBALS: dict[str, Any] = {
    "label": label,
    "shown": shown,
    "measured": measured,
    "thousands": thousands,
    "short": format_number,
    "dotted": dotted,
    "choices": choices,
    "with_code": with_code,
    "safe_link": safe_link,
    "codebook": codebook,
}
