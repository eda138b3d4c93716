"""Altair charts as files, without a browser and without a network (vl-convert draws them)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import altair as alt

Chart: TypeAlias = "alt.TopLevelMixin"

_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|\\(?=[xu0-7])")
"""What is in no XML; and backslashes that Vega's expressions would make into that."""

PNG_SCALE = 2.0
"""Pixels per unit of a PNG, for screens of high density."""


def to_svg(chart: Chart) -> str:
    """A standalone SVG; one chart gives one text, whatever was drawn before."""
    import vl_convert

    return _number_ids(str(vl_convert.vegalite_to_svg(_specification(chart))), "part")


def to_png(chart: Chart, scale: float = PNG_SCALE) -> bytes:
    """A PNG with ``scale`` pixels per unit, on white, so that it can be read in a dark viewer."""
    import vl_convert

    specification = {**_specification(chart), "background": "white"}
    return bytes(vl_convert.vegalite_to_png(specification, scale=scale))


def to_pdf(chart: Chart) -> bytes:
    """A PDF of one page."""
    import vl_convert

    return bytes(vl_convert.vegalite_to_pdf(_specification(chart)))


def inline_svg(svg: str, prefix: str, *, title: str, description: str) -> str:
    """An SVG to embed in an HTML page.

    Its ids are renamed, because those of two figures on one page would clash; it fills the available width; and it
    has a title and a description for screen readers.

    Args:
        svg: From `to_svg`.
        prefix: Unique on the page; letters, digits and dashes.
        title: A few words, any text.
        description: What the figure shows, any text.
    """
    svg = _number_ids(svg, prefix)
    opening, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', opening)
    if box is None:
        raise ValueError("an SVG without a viewBox can't be scaled to the page")
    spoken = (
        f'<title id="{prefix}-title">{_escape(title)}</title><desc id="{prefix}-desc">{_escape(description)}</desc>'
    )
    start = f'<svg role="img" aria-labelledby="{prefix}-title" aria-describedby="{prefix}-desc" {box[0]}>'
    return start + spoken + rest


def _number_ids(svg: str, prefix: str) -> str:
    """Rename the ids, numbered afresh: the drawing library counts on from figure to figure."""
    ids = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    names = {old: f"{prefix}-{number}" for number, old in enumerate(ids)}
    svg = re.sub(r'\bid="([^"]+)"', lambda match: f'id="{names[match[1]]}"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{names[match[1]]})", svg)
    return re.sub(r'href="#([^"]+)"', lambda match: f'href="#{names[match[1]]}"', svg)


def _specification(chart: Chart) -> dict[str, Any]:
    # Validation against Vega-Lite's schema costs a second and adds nothing for specifications that the tests draw.
    specification: dict[str, Any] = _clean(chart.to_dict(validate=False))
    return specification


def _clean(value: Any) -> Any:
    """A specification whose texts hold no control characters: on one, vl-convert ends the whole process."""
    if isinstance(value, str):
        return _NO_TEXT.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_clean(name): _clean(part) for name, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list) else value


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
