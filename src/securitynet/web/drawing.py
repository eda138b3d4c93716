"""Drawing a plot as SVG: in the page itself, coloured by its style sheet, with a link for each model.

No library draws in the browser: those need inline styles or `eval`, which the page's content policy forbids, and the
plot is there without a script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from securitynet.web.plot import Plot, Point

WIDTH, HEIGHT = 880, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 54


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in pixels, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A model, in pixels."""

    x: float
    y: float
    point: Point
    title: str


@dataclass(frozen=True)
class Drawing:
    """All that the template draws."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]


def draw(plot: Plot) -> Drawing | None:
    """Places and ticks; None if there is no point."""
    if not plot.points:
        return None
    xs = _Scale([p.x for p in plot.points], plot.log[0], LEFT, WIDTH - RIGHT)
    ys = _Scale([p.y for p in plot.points], plot.log[1], HEIGHT - BOTTOM, TOP)
    dots = tuple(Dot(round(xs(p.x), 1), round(ys(p.y), 1), p, _title(plot, p)) for p in plot.points)
    return Drawing(
        WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM, tuple(xs.ticks(7)), tuple(ys.ticks(6)), dots
    )


def number(value: float) -> str:
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
    return f"{point.name}{of}{group}\n{plot.x} {number(point.x)}\n{plot.y} {number(point.y)}"


class _Scale:
    """From values to pixels, with a little air at both ends."""

    def __init__(self, values: list[float], logarithmic: bool, start: float, end: float) -> None:
        self._log = logarithmic
        placed = [math.log10(v) if logarithmic else v for v in values]
        low, high = min(placed), max(placed)
        air = (high - low) * 0.04 or abs(low) * 0.05 or 0.5
        self._low, self._high, self._start, self._end = low - air, high + air, start, end

    def __call__(self, value: float) -> float:
        placed = math.log10(value) if self._log else value
        share = (placed - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self, about: int) -> list[Tick]:
        """Round values inside."""
        span = self._high - self._low
        if self._log and span >= 2:
            step = max(1, math.ceil(span / about))
            powers = range(math.ceil(self._low), math.floor(self._high) + 1, step)
            return [Tick(round(self(10.0**power), 1), number(10.0**power)) for power in powers]
        low, high = (10**self._low, 10**self._high) if self._log else (self._low, self._high)
        rough = (high - low) / about
        base = 10.0 ** math.floor(math.log10(rough))
        step_size = next(base * factor for factor in (1, 2, 5, 10) if base * factor >= rough)
        first = math.ceil(low / step_size)
        found: list[Tick] = []
        while first * step_size <= high and len(found) < 20:
            value = round(first * step_size, 12)
            found.append(Tick(round(self(value), 1), number(value)))
            first += 1
        return found
