"""The filter language: what a filter's text asks of one code.

A filter is a text per code: ``CIFAR-10,SVHN`` (any of), ``2016..2020``, ``..1e6``, ``0.9..``, ``>=0.9``, ``!VGG``
(not), ``none`` and ``any`` (whether it is known at all). The database (`securitynet.catalog.query`) and the web page's
columns (`securitynet.web.search`) both answer the `Filter` that is made of it here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from securitynet.catalog.codebook import CodeInfo
from securitynet.catalog.known import spell_dataset
from securitynet.catalog.text import make_code_term
from securitynet.errors import ConfigurationError

_COMPARISON = re.compile(r"^(>=|<=|>|<)\s*(.+)$")
_TOO_LARGE = 2**63


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, None for no end; ``above`` and ``below`` leave the end itself out."""

    low: float | int | None = None
    high: float | int | None = None
    above: bool = False
    below: bool = False


@dataclass(frozen=True)
class Filter:
    """A condition on one code. Exactly one of ``known``, ``values`` and ``ranges`` says something.

    Attributes:
        info: The code.
        known: Whether the code must be known (True) or unknown (False).
        values: Values any of which is meant; of a code with several values, single items.
        ranges: Of a number: ranges any of which is meant.
        negated: Whether what has them is left out; entries without the code then match.
    """

    info: CodeInfo
    known: bool | None = None
    values: tuple[Any, ...] = ()
    ranges: tuple[Range, ...] = ()
    negated: bool = False

    @property
    def terms(self) -> tuple[str, ...]:
        """Search terms of the values. They forget case and punctuation: `resnet` finds `ResNet`."""
        return tuple(make_code_term(self.info.name, value) for value in self.values)


def parse_filter(info: CodeInfo, value: Any) -> Filter:
    """Read a filter.

    Args:
        info: The code that it is on.
        value: A text in the filter language; or a value, or a list of whole values of which any is meant.

    Raises:
        ConfigurationError: If it makes no sense for this code.
    """
    if not isinstance(value, str):
        items = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        return _any_of(info, [str(item).lower() if isinstance(item, bool) else str(item) for item in items], False)
    text = value.strip()
    if text in ("none", "any"):
        return Filter(info, known=text == "any")
    negated = text.startswith("!")
    text = text.removeprefix("!")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not info.numeric:
        return _any_of(info, parts, negated)
    if len(parts) > 1 and any(_COMPARISON.match(part) for part in parts):
        raise ConfigurationError(
            f"{info.name}: a comma means any of, and {text!r} compares.", hint="Write both ends as LOW..HIGH."
        )
    return Filter(info, ranges=tuple(_parse_range(info, part) for part in parts or [text]), negated=negated)


def _any_of(info: CodeInfo, texts: list[str], negated: bool) -> Filter:
    if not texts:
        raise ConfigurationError(f"{info.name}: the filter names no value.", hint="Write a value, `none` or `any`.")
    parsed = [info.parse(spell_dataset(text) if info.name == "dataset" else text) for text in texts]
    if info.numeric:
        return Filter(info, ranges=tuple(Range(number, number) for number in parsed), negated=negated)
    return Filter(info, values=tuple(item[0] if info.several else item for item in parsed), negated=negated)


def _parse_range(info: CodeInfo, text: str) -> Range:
    comparison = _COMPARISON.match(text)
    if comparison:
        sign, number = comparison[1], _parse_number(info, comparison[2])
        strict = len(sign) == 1
        return Range(low=number, above=strict) if sign[0] == ">" else Range(high=number, below=strict)
    if ".." in text:
        low, high = (_parse_number(info, end) if end.strip() else None for end in text.split("..", 1))
        return Range(low, high)
    number = _parse_number(info, text)
    return Range(number, number)


def _parse_number(info: CodeInfo, text: str) -> float | int:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigurationError(
            f"{info.name}: {text!r} is no number.", hint="Write a number, LOW..HIGH, ..HIGH, LOW.. or >=NUMBER."
        )
    # A database has no larger whole numbers, and no code such values.
    return int(number) if number == int(number) and abs(number) < _TOO_LARGE else number
