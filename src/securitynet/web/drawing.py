"""Drawing a plot as SVG: in the page itself, coloured by its style sheet, with a link for each model.

No library draws in the browser: those need inline styles or `eval`, which the page's content policy forbids, and the
plot is there without a script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from securitynet.web.plot import Plot, Point

WIDTH, HEIGHT = 880, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 54
SHADES = 6
"""Steps of the density's shade."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in pixels, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """All that the template draws.

    Attributes:
        width: Of the picture, in pixels, as are all lengths here.
        height: Of the picture.
        left: Where the vertical axis is.
        right: Right end of the plot.
        top: Upper end of the plot.
        bottom: Where the horizontal axis is.
        x_ticks: Marks of the horizontal axis.
        y_ticks: Marks of the vertical axis.
        shades: SVG paths of the cells of the density, those with the fewest models first; none if all are points.
        dots: A link with a circle for each model that is drawn.
    """

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    shades: tuple[str, ...]
    dots: Markup


def draw_plot(plot: Plot) -> Drawing | None:
    """Places and ticks; None if there is no point."""
    if not plot.points:
        return None
    xs = _Scale(plot.extent[0], plot.log[0], LEFT, WIDTH - RIGHT)
    ys = _Scale(plot.extent[1], plot.log[1], HEIGHT - BOTTOM, TOP)
    ends = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
    ticks = (tuple(xs.ticks(7)), tuple(ys.ticks(6)))
    return Drawing(WIDTH, HEIGHT, *ends, *ticks, _shades(plot, xs, ys), _dots(plot, xs, ys))


def _dots(plot: Plot, xs: _Scale, ys: _Scale) -> Markup:
    # Thousands of them are written here, ten times as quickly as by the template.
    radius = 3.5 if len(plot.points) > 600 else 4.5
    # Only the first is in the order of the Tab key; arrow keys lead to the others.
    return Markup("\n").join(
        Markup(
            f'<a href="/models/{escape(point.id)}" tabindex="{-1 if place else 0}"><circle class="c{point.colour}" '
            f'cx="{xs(point.x):.1f}" cy="{ys(point.y):.1f}" r="{radius}"><title>{escape(_title(plot, point))}</title>'
            "</circle></a>"
        )
        for place, point in enumerate(plot.points)
    )


def _shades(plot: Plot, xs: _Scale, ys: _Scale) -> tuple[str, ...]:
    if plot.density is None:
        return ()
    (left, right), (bottom, top) = (
        (scale.at(low), scale.at(high)) for scale, (low, high) in zip((xs, ys), plot.extent, strict=True)
    )
    width, height = (right - left) / plot.density.shape[0], (bottom - top) / plot.density.shape[1]
    # By the logarithm of the count: a cell with one model can still be seen.
    share = np.log1p(plot.density) / np.log1p(plot.density.max())
    levels = np.minimum(np.ceil(SHADES * share), SHADES).astype(int)
    paths: list[list[str]] = [[] for _ in range(SHADES)]
    for across, up in np.argwhere(levels).tolist():
        corner = f"M{left + across * width:.1f} {bottom - (up + 1) * height:.1f}"
        paths[levels[across, up] - 1].append(f"{corner}h{width:.1f}v{height:.1f}h-{width:.1f}z")
    return tuple("".join(path) for path in paths)


def format_number(value: float) -> str:
    """A number, short: 0.912, 2016, 11.7M, 1.8G."""
    size = abs(value)
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= scale:
            return f"{value / scale:.3g}{letter}"
    if size >= 10_000:
        return f"{value:,.0f}"
    if value == int(value):
        return str(int(value))
    return f"{value:.4g}" if size >= 0.001 else f"{value:.2g}"


def _title(plot: Plot, point: Point) -> str:
    of = f" · {point.dataset}" if point.dataset else ""
    group = f"\n{point.group}" if point.group and point.group != point.dataset else ""
    return f"{point.name}{of}{group}\n{plot.x} {format_number(point.x)}\n{plot.y} {format_number(point.y)}"


class _Scale:
    """From values to pixels, with a little air at both ends."""

    def __init__(self, extent: tuple[float, float], logarithmic: bool, start: float, end: float) -> None:
        self._log = logarithmic
        low, high = extent
        air = (high - low) * 0.04 or abs(low) * 0.05 or 0.5
        self._low, self._high, self._start, self._end = low - air, high + air, start, end

    def __call__(self, value: float) -> float:
        return self.at(math.log10(value) if self._log else value)

    def at(self, placed: float) -> float:
        """Where a value stands that is a logarithm, if the axis is logarithmic."""
        share = (placed - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self, about: int) -> list[Tick]:
        """Round values inside."""
        span = self._high - self._low
        if self._log and span >= 2:
            step = max(1, math.ceil(span / about))
            powers = range(math.ceil(self._low), math.floor(self._high) + 1, step)
            return [Tick(round(self(10.0**power), 1), format_number(10.0**power)) for power in powers]
        low, high = (10**self._low, 10**self._high) if self._log else (self._low, self._high)
        rough = (high - low) / about
        base = 10.0 ** math.floor(math.log10(rough))
        step_size = next(base * factor for factor in (1, 2, 5, 10) if base * factor >= rough)
        first = math.ceil(low / step_size)
        ticks: list[Tick] = []
        while first * step_size <= high and len(ticks) < 20:
            value = round(first * step_size, 12)
            ticks.append(Tick(round(self(value), 1), format_number(value)))
            first += 1
        return ticks
