"""Numbers in captions."""

from __future__ import annotations

MINUS = "−"


def number(value: float, decimals: int = 3) -> str:
    """A number with a true minus sign."""
    text = f"{value:.{decimals}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", MINUS)


def estimate(value: float, low: float, high: float, decimals: int = 3) -> str:
    """A value with its interval.

    Args:
        value: The value.
        low: Lower end; NaN if there is no interval.
        high: Upper end; NaN if there is no interval.
        decimals: Digits after the point.
    """
    if low != low or high != high:
        return f"{number(value, decimals)} (no interval)"
    return f"{number(value, decimals)} [{number(low, decimals)}, {number(high, decimals)}]"


def lower_text(text: str) -> str:
    """Text for the middle of a sentence: lower-case, except for what is not a plain word (``AUC``, ``MLP``, ``ε``)."""
    first, space, rest = text.partition(" ")
    return (first if first[1:] != first[1:].lower() else first.lower()) + space + rest


def write_count(count: int, what: str) -> str:
    """``1 model``, ``2,000 models``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def write_p_value(p: float | None) -> str:
    """``, p = 0.012``, or nothing where there is none."""
    if p is None or p != p:
        return ""
    return ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"
