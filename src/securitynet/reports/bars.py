"""Small drawings of intervals: a bar for the interval, a dot for the value, a dashed line at chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from securitynet.records import Measurement
from securitynet.reports import words

WIDTH, MARGIN, ROW = 232, 36, 18


@dataclass(frozen=True)
class Axis:
    """The axis of an interval bar.

    Attributes:
        low: At the left end.
        high: At the right end.
        log: Whether it is logarithmic.
        labels: Of both ends.
    """

    low: float
    high: float
    log: bool
    labels: tuple[str, str]

    def at(self, value: float) -> float:
        """Position of a value in the drawing; values beyond an end are put on it."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)


def choose_axis(measurements: Sequence[Measurement]) -> Axis:
    """One axis for measurements of one kind.

    AUC and balanced accuracy have 0.4 to 1, wider if need be; rates at a FPR are logarithmic, from a tenth of that FPR;
    accuracies 0 to 1.
    """
    kind = words.find_kind(measurements[0].name)
    ends = [end for m in measurements for end in (m.low, m.high) if end is not None]
    least, most = min(ends, default=0.0), max(ends, default=1.0)
    if kind.fpr is not None:
        low = 10.0 ** math.floor(math.log10(kind.fpr) - 1)
        return Axis(low, 1.0, True, (f"≤ {words.write_percent(low)}", "100%"))
    if kind.chance == 0.5:
        low = min(0.4, math.floor(least * 10) / 10)
        return Axis(
            low, 1.0, False, (words.write_percent(low), "100%") if kind.unit == "share" else (f"{low:.1f}", "1")
        )
    if kind.unit == "points":
        low = min(-0.1, math.floor(least * 10) / 10)
        return Axis(low, 1.0, False, (f"{round(low * 100)}".replace("-", words.MINUS), "100"))
    if kind.unit == "share":
        return Axis(0.0, 1.0, False, ("0%", "100%"))
    if least >= 0 and most <= 1:
        return Axis(0.0, 1.0, False, ("0", "1"))
    low, high = min(0.0, least), max(most, least + 1e-9, 0.0)
    return Axis(low, high, False, (f"{low:.3g}".replace("-", words.MINUS), f"{high:.3g}"))


def draw_interval(
    measurements: Sequence[Measurement], labels: Sequence[str] = (), series: Sequence[int] = ()
) -> Markup | None:
    """The drawing of one measurement, or of the same one for several targets below each other.

    Args:
        measurements: At least one with a value.
        labels: Names of the targets, for screen readers.
        series: Number of the colour and shape of each; 0 if absent.

    Returns:
        Inline SVG that takes its colours from the page's style sheet; None for a bound, which has no interval.
    """
    if words.find_kind(measurements[0].name).one_sided:
        return None
    axis = choose_axis(measurements)
    height = ROW * len(measurements) + 6
    chance = words.find_kind(measurements[0].name).chance
    parts = []
    for row, measurement in enumerate(measurements):
        if measurement.value is None or measurement.low is None or measurement.high is None:
            continue
        y = 3 + ROW * row + ROW / 2
        look = series[row] % 6 if series else 0
        low, high, value = axis.at(measurement.low), axis.at(measurement.high), axis.at(measurement.value)
        width = max(round(high - low, 1), 1.5)
        left = min(low, WIDTH - MARGIN - width)
        parts.append(f'<rect class="span s{look}" x="{left:g}" y="{y - 3.5:g}" width="{width:g}" height="7" rx="2"/>')
        parts.append(_marker(look, value, y))
    baselines = "".join(
        f'<line class="base" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{3 + ROW * row + ROW / 2:g}" '
        f'y2="{3 + ROW * row + ROW / 2:g}"/>'
        for row in range(len(measurements))
    )
    chance_line = ""
    if chance is not None:
        x = axis.at(chance)
        chance_line = f'<line class="chance" x1="{x:g}" x2="{x:g}" y1="1" y2="{height - 1}"/>'
    middle = height / 2 + 3.2
    left_label, right_label = axis.labels
    body = Markup(baselines + chance_line + "".join(parts))  # numbers only
    return Markup(
        '<svg class="bar" viewBox="0 0 {w} {h}" role="img" aria-label="{name}">'
        '<text x="{left:g}" y="{y:g}" text-anchor="end">{a}</text>{body}<text x="{right:g}" y="{y:g}">{b}</text></svg>'
    ).format(
        w=WIDTH,
        h=height,
        name=_described(measurements, labels, chance),
        left=MARGIN - 5,
        right=WIDTH - MARGIN + 5,
        y=middle,
        a=left_label,
        b=right_label,
        body=body,
    )


def draw_swatch(number: int, dash: Sequence[int], *, marker: bool = False) -> Markup:
    """A sample of a line's look, for a legend.

    Args:
        number: Of the colour and shape.
        dash: As in the figure.
        marker: Show the marker that the interval bars have instead.
    """
    if marker:
        return Markup(f'<svg class="swatch" viewBox="0 0 18 12" aria-hidden="true">{_marker(number % 6, 9, 6)}</svg>')
    pattern = "" if tuple(dash) == (1, 0) else f' stroke-dasharray="{" ".join(str(d) for d in dash)}"'
    return Markup(
        f'<svg class="swatch line" viewBox="0 0 34 12" aria-hidden="true">'
        f'<line class="s{number % 6}" x1="1" x2="33" y1="6" y2="6"{pattern}/></svg>'
    )


def _marker(look: int, x: float, y: float) -> str:
    """A dot, diamond or square, so that targets differ in shape and not only in colour."""
    if look % 3 == 1:
        return f'<path class="mark s{look}" d="M{x:g} {y - 4.2:g}l4.2 4.2l-4.2 4.2l-4.2-4.2z"/>'
    if look % 3 == 2:
        return f'<rect class="mark s{look}" x="{x - 2.8:g}" y="{y - 2.8:g}" width="5.6" height="5.6"/>'
    return f'<circle class="mark s{look}" cx="{x:g}" cy="{y:g}" r="3"/>'


def _described(measurements: Sequence[Measurement], labels: Sequence[str], chance: float | None) -> str:
    sentences = []
    for row, measurement in enumerate(measurements):
        numbers = words.write_numbers(measurement)
        if numbers is not None:
            before = f"{labels[row]}: " if labels else ""
            sentences.append(f"{before}{numbers.value}, interval {numbers.interval}")
    guess = "" if chance is None else f"; guessing: {chance:g}"
    return "; ".join(sentences) + guess
