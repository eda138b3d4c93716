"""Measurements as text: what each is called, how its numbers are written, and what guessing would give."""

from __future__ import annotations

import math
from dataclasses import dataclass

from securitynet.records import Measurement
from securitynet.reports import families
from securitynet.reports.kinds import Kind

MINUS = "−"
MOST_DECIMALS = 6


_KINDS = {
    "train_accuracy": Kind("Accuracy on members", "share"),
    "test_accuracy": Kind("Accuracy on non-members", "share"),
    "overfitting": Kind("Overfitting level", "points", chance=0.0),
    "auc": Kind("AUC", chance=0.5),
}


def find_kind(name: str) -> Kind:
    """The kind of a measurement by its dotted name; a name that is not known is shown as it is."""
    head, mark, bound = name.partition("tpr@fpr=")
    if mark:
        try:
            fpr = float(bound)
        except ValueError:
            return Kind(f"{mark}{bound}")
        return Kind(f"TPR at {write_percent(fpr)} FPR", "share", chance=fpr, fpr=fpr)
    if name == "membership.blind.auc":
        name = "membership.blind-auc"  # the control itself, under the name that attacks show it by
    known = families.find_family_kind(name)
    if known is not None:
        return known
    last = head.rpartition(".")[2]
    return _KINDS.get(last, Kind(last.replace("-", " ").replace("_", " ").capitalize()))


def write_percent(share: float) -> str:
    """A given share as a percentage, with no more digits than it has: 0.001 becomes ``0.1%``."""
    return f"{share * 100:.6g}%"


def write_rate(share: float) -> str:
    """A computed rate as a percentage, to three digits: 0.575556 becomes ``57.6%``."""
    return f"{share * 100:.3g}%"


@dataclass(frozen=True)
class Numbers:
    """A measurement's numbers as text, all with the same decimals.

    Attributes:
        value: ``86.04%``.
        interval: ``85.73–86.34%``.
    """

    value: str
    interval: str


def write_numbers(measurement: Measurement, *, significant: int = 2) -> Numbers | None:
    """The numbers of a measurement, or None if it has no value.

    There are as many decimals as give half the interval's width ``significant`` digits, and more where rounding would
    put an end of the interval onto the value of chance, so that text never says "contains" where numbers say "not".
    """
    value, low, high = measurement.value, measurement.low, measurement.high
    if value is None or low is None or high is None:
        return None
    what = find_kind(measurement.name)
    factor = 1.0 if what.unit == "plain" else 100.0
    value, low, high = value * factor, low * factor, high * factor
    chance = None if what.chance is None else what.chance * factor
    half = (high - low) / 2
    decimals = 0 if half == 0 else significant - 1 - math.floor(math.log10(half))
    decimals = min(max(decimals, 2 if what.unit == "plain" else 1), MOST_DECIMALS)
    while chance is not None and decimals < MOST_DECIMALS and _touches(chance, (low, high), decimals):
        decimals += 1
    unit = {"share": "%", "points": " points", "plain": ""}[what.unit]

    def text(number: float) -> str:
        written = f"{number:.{decimals}f}"
        if float(written) == 0:
            written = "0"
        return written.replace("-", MINUS)

    if what.one_sided:
        return Numbers(text(value), "lower bound")
    if min(value, low, high) < 0:
        interval = f"{text(low)} to {text(high)}"
    else:
        interval = f"{text(low)}–{text(high)}"
    return Numbers(text(value) + unit, interval + unit)


def write_change(old: float, new: float, difference: Measurement) -> tuple[str, str, str]:
    """Two values of a measurement, and their difference with its interval, with as many decimals as that has.

    Args:
        old: The value that is subtracted.
        new: The value from which it is subtracted.
        difference: New minus old, under the measurement's name.
    """
    what = find_kind(difference.name)
    factor, unit = {"plain": (1.0, ""), "share": (100.0, "%"), "points": (100.0, " points")}[what.unit]
    width = ((difference.high or 0.0) - (difference.low or 0.0)) * factor
    decimals = 1 if width >= 2 else 2 if width >= 0.2 else 3

    def text(value: float | None) -> str:
        return f"{(value or 0.0) * factor:.{decimals}f}".replace("-", MINUS)

    sign = "+" if (difference.value or 0.0) > 0 else ""
    change = f"{sign}{text(difference.value)} ({text(difference.low)} to {text(difference.high)})"
    return text(old) + unit, text(new) + unit, change


def _touches(chance: float, ends: tuple[float, float], decimals: int) -> bool:
    return any(end != chance and round(end, decimals) == round(chance, decimals) for end in ends)


def keep_unbroken(interval: str) -> str:
    """An interval that stays on one line: a word joiner on both sides of its dash."""
    return interval.replace("–", "\u2060–\u2060")


def write_level(measurement: Measurement) -> str:
    """The confidence level as ``95%``."""
    return write_percent(measurement.level)


def write_small_share(count: int, total: int) -> str:
    """A count among many, as ``3 of 10,000``."""
    return f"{count:,} of {total:,}"


def write_probability(value: float) -> str:
    """A posterior: one decimal, and never a rounded certainty."""
    if 0.9995 <= value < 1:
        return "> 99.9%"
    if 0 < value < 0.0005:
        return "< 0.1%"
    return f"{value:.1%}"


def score(value: float) -> str:
    """A score of unknown scale, with three digits."""
    if value == 0:
        return "0"
    return f"{value:.3g}".replace("-", MINUS).replace("inf", "∞")


def write_duration(seconds: float) -> str:
    """A duration in words: ``3.20 s``, ``2 min 05 s``."""
    if seconds < 0.01:
        return "under 0.01 s"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def count_noun(count: int, singular: str, several: str | None = None) -> str:
    """A count with its noun: ``1 attack``, ``2 attacks``.

    Args:
        count: How many.
        singular: The noun.
        several: Its plural; by default the singular with an s.
    """
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"


def join_words(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
