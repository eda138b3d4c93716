"""Names of classes that two sources state: equal in another Unicode form, alike but for case, or in another order."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_FILLERS = frozenset(" _-\u00a0")
_SHOWN = 3


def normalize_name(name: str) -> str:
    """Bring a name to Unicode form NFC: ``é`` may be one character (NFC) or two (NFD, as macOS writes folders)."""
    return unicodedata.normalize("NFC", name)


def simplify_name(name: str) -> str:
    """Reduce a name to what people compare: without case, blanks, underscores and hyphens."""
    folded = normalize_name(name).casefold()
    return "".join(character for character in folded if character not in _FILLERS)


def find_near_name(name: str, names: Sequence[str]) -> str | None:
    """Find the other name that differs by Unicode form, case, blanks, underscores or hyphens only.

    Args:
        name: A name.
        names: Names to search; ``name`` itself is passed over.

    Returns:
        The name; None if there is none, or more than one.
    """
    simple = simplify_name(name)
    near = [other for other in names if other != name and simplify_name(other) == simple]
    return near[0] if len(near) == 1 else None


def find_name_order(names: Sequence[str], others: Sequence[str]) -> list[int] | None:
    """Find the position in ``others`` of each of some names that are the same in any order.

    Args:
        names: K names.
        others: Names to search.

    Returns:
        K positions; None unless both are the same K distinct names, up to their Unicode form.
    """
    place = {normalize_name(name): position for position, name in enumerate(others)}
    ours = [normalize_name(name) for name in names]
    if len(place) != len(others) or len(set(ours)) != len(ours) or set(ours) != set(place):
        return None
    return [place[name] for name in ours]


def describe_order(
    names: Sequence[str], others: Sequence[str], order: Sequence[int], places: tuple[str, str] = ("here", "there")
) -> str:
    """Describe the first names that have another number.

    Args:
        names: K names.
        others: The same names in another order.
        order: Position in ``others`` of each of ``names``.
        places: Where ``names`` and ``others`` are stated.
    """
    moved = [(number, position) for number, position in enumerate(order) if number != position]
    shown = [
        f"{others[position]} is {number} {places[0]} and {position} {places[1]}" for number, position in moved[:_SHOWN]
    ]
    return ", ".join(shown) + (", ..." if len(moved) > _SHOWN else "")


def explain_difference(
    names: Sequence[str], others: Sequence[str], places: tuple[str, str] = ("here", "there")
) -> str | None:
    """Explain how two lists of names differ, where that is less than it seems.

    Args:
        names: Names here, in the order of their numbers.
        others: Names there, likewise.
        places: Words for here and there.

    Returns:
        A sentence; None if the lists are equal or have other names.
    """
    if list(names) == list(others):
        return None
    order = find_name_order(names, others)
    if order is not None and order == sorted(order):
        return "Its classes have the same names in another Unicode form (NFC and NFD)."
    if order is not None:
        return f"Its classes have the same names in another order: {describe_order(names, others, order, places)}."
    if sorted(map(simplify_name, names)) == sorted(map(simplify_name, others)):
        differing = [name for name in names if name not in others]
        shown = ", ".join(
            f"{name!r} {places[0]} and {find_near_name(name, others)!r} {places[1]}" for name in differing[:_SHOWN]
        )
        return f"Names of its classes differ by case or spacing only: {shown}."
    return None
