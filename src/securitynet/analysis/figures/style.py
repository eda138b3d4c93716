"""One style for all figures: colours that colour-blind readers can distinguish, and dashes for print in grey.

Colours are named by role. A figure is drawn in the light colours; a page that is shown on a dark screen exchanges them
(`exchange_rules`), because each role's light colour occurs for that role alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True)
class Ink:
    """A colour of a figure.

    Attributes:
        light: On a white page, ``#rrggbb``.
        dark: In its place on a dark screen.
    """

    light: str
    dark: str


TEXT = Ink("#4a5560", "#a9b4bf")
GRID = Ink("#e6e9ec", "#2b323a")
AXIS = Ink("#9aa4ae", "#5d6873")
CHANCE = Ink("#6f7b87", "#8794a1")
VEIL = Ink("#eef0f2", "#242a31")
SERIES = (
    Ink("#0b5fa5", "#6db3f2"),
    Ink("#d35400", "#ff9a5c"),
    Ink("#00795c", "#4fd1ad"),
    Ink("#a23b8f", "#e79bd8"),
    Ink("#8a6a00", "#e3c04a"),
    Ink("#3b4a5a", "#c3cdd7"),
)
"""After Okabe and Ito (2008), darkened so that thin lines keep a contrast of 4 to 1 on white."""

DASHES: tuple[tuple[int, ...], ...] = ((1, 0), (7, 3), (2, 2), (9, 3, 2, 3), (4, 2), (12, 4))
"""Dashes that go with the series' colours, so that lines also differ in grey. The first is a solid line."""

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""Three fonts of the same widths, none of them loaded: the layout is computed for the first, and a wider one (such as
``sans-serif`` on many Linux machines) would not fit."""


def choose_ink(number: int) -> Ink:
    """Colour of the n-th line or target, from 0; they repeat."""
    return SERIES[number % len(SERIES)]


def choose_dash(number: int) -> tuple[int, ...]:
    """Dashes of the n-th line or attack, from 0; they repeat."""
    return DASHES[number % len(DASHES)]


def list_inks() -> tuple[Ink, ...]:
    """All colours that a figure may hold."""
    return (TEXT, GRID, AXIS, CHANCE, VEIL, *SERIES)


def exchange_rules(scope: str) -> str:
    """CSS that replaces a figure's light colours by dark ones; style sheets take precedence over an SVG's attributes.

    Args:
        scope: Selector of the element with the figure, such as ``.figure``.
    """
    rules = []
    for colour in list_inks():
        for attribute in ("fill", "stroke"):
            rules.append(f'{scope} [{attribute}="{colour.light}"] {{ {attribute}: {colour.dark}; }}')
    return "\n".join(rules)


def style_chart(chart: alt.LayerChart | alt.HConcatChart | alt.VConcatChart | alt.FacetChart) -> alt.TopLevelMixin:
    """The chart with the shared fonts, colours and axes."""
    axis: dict[str, Any] = {
        "labelColor": TEXT.light,
        "titleColor": TEXT.light,
        "gridColor": GRID.light,
        "domainColor": AXIS.light,
        "tickColor": AXIS.light,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "tickSize": 4,
        "labelPadding": 4,
    }
    legend: dict[str, Any] = {
        "labelColor": TEXT.light,
        "labelFontSize": 12,
        "title": None,
        "orient": "top",
        "symbolType": "stroke",
        "symbolSize": 500,
        "labelLimit": 400,
    }
    # At once: each `configure…` copies the whole chart.
    finished: alt.TopLevelMixin = chart.configure(
        background="transparent",
        font=FONT,
        aria=False,
        view={"stroke": None},
        axis=axis,
        legend=legend,
    )
    return finished
