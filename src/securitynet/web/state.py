"""What a visitor asks for, as it stands in the address: text, filters, order and page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from securitynet.catalog.codebook import find_code_or_measured
from securitynet.errors import ConfigurationError

PER_PAGE = 25
MOST_PER_PAGE = 200
MOST_TEXT = 200
MOST_VALUES = 50
MOST_PAGE = 10_000_000
_RANGE_ENDS = (".from", ".to")

Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class State:
    """A search.

    Attributes:
        text: Words.
        filters: Code -> texts, any of which is meant; ranges are one text.
        sort: Code, with ``-`` before it for descending; or nothing.
        page: From 1.
    """

    text: str = ""
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sort: str = ""
    page: int = 1

    @classmethod
    def read(cls, pairs: Pairs, also: Iterable[str] = ()) -> State:
        """From the parameters of an address.

        Args:
            pairs: Names and values; unknown codes are errors.
            also: Further names that the page knows, to be passed over.

        Raises:
            ConfigurationError: If a value makes no sense.
            UnknownName: If a parameter is no code.
        """
        text, sort, page = "", "", 1
        filters: dict[str, tuple[str, ...]] = {}
        ends: dict[str, dict[str, str]] = {}
        passed = set(also)
        for name, raw in pairs:
            value = raw.strip()
            if "\0" in value or len(value) > 10 * MOST_TEXT:
                raise ConfigurationError(f"The value of {name[:50]!r} is not text of a reasonable length.")
            if name in passed or value == "":
                continue
            if name == "q":
                text = _short(value)
            elif name == "sort":
                sort = value
            elif name == "page":
                page = parse_whole(value, "page", 1, MOST_PAGE)
            elif name.endswith(_RANGE_ENDS):
                stem, _, end = name.rpartition(".")
                ends.setdefault(find_code_or_measured(stem).name, {})[end] = _number(value, stem)
            else:
                known = find_code_or_measured(name).name
                filters[known] = (*filters.get(known, ()), value)
                if len(filters[known]) > MOST_VALUES:
                    raise ConfigurationError(f"More than {MOST_VALUES} values of {known}.")
        for name, given in ends.items():
            filters[name] = (f"{given.get('from', '')}..{given.get('to', '')}",)
        return cls(text, filters, sort, page)

    def pairs(self) -> list[tuple[str, str]]:
        """The parameters again, without those that say nothing."""
        parameters = [("q", self.text)] if self.text else []
        parameters += [(name, value) for name, values in self.filters.items() for value in values]
        parameters += [("sort", self.sort)] if self.sort else []
        return parameters + ([("page", str(self.page))] if self.page > 1 else [])

    def address(self, path: str = "/", also: Pairs = ()) -> str:
        """A local address with this state."""
        query = urlencode([*self.pairs(), *also])
        return f"{path}?{query}" if query else path

    def without(self, name: str, value: str | None = None) -> State:
        """The state less one filter, or one of its values; on the first page."""
        filters = dict(self.filters)
        left = tuple(item for item in filters.pop(name, ()) if value is not None and item != value)
        return replace(self, filters={**filters, **({name: left} if left else {})}, page=1)

    def range_of(self, name: str) -> tuple[str, str]:
        """Both ends of a range filter, as far as it has that form."""
        values = self.filters.get(name, ())
        if len(values) == 1 and ".." in values[0] and "," not in values[0]:
            low, high = values[0].split("..", 1)
            return low, high
        return "", ""


def parse_whole(text: str, name: str, least: int, most: int) -> int:
    """Read a whole number.

    Args:
        text: What was given.
        name: What to call it in an error.
        least: Smallest number allowed.
        most: Largest number allowed.

    Raises:
        ConfigurationError: If it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ConfigurationError(f"{name} is a whole number from {least} to {most:,}, not {text[:40]!r}.")
    return int(text)


def _number(text: str, name: str) -> str:
    try:
        fine = math.isfinite(float(text))
    except ValueError:
        fine = False
    if not fine:
        raise ConfigurationError(f"{name}: {text[:40]!r} is no number.")
    return text


def _short(text: str) -> str:
    if len(text) > MOST_TEXT:
        raise ConfigurationError(f"A search of more than {MOST_TEXT} characters.", hint="Use fewer words.")
    return text
