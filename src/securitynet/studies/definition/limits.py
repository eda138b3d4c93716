"""How large a study may be: a line of a study file can ask for more trials than memory holds, or a life allows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from securitynet.errors import ConfigurationError

MOST_SEEDS = 100_000
"""Seeds in one list."""

MOST_TARGETS = 200_000
"""Targets of a study."""

MOST_METHODS = 100_000
"""Attacks and detectors of a study, each with its settings."""

MOST_TRIALS = 1_000_000
"""Trials of a study; three times as many as the largest that was measured (``benchmarks/study_scale.py``)."""

_HINT = "Split it into several studies: `securitynet study merge` joins their results."


def check_combinations(lists: Iterable[Sequence[object]], most: int, what: str) -> None:
    """Raise `ConfigurationError` if there are too many combinations of values.

    Args:
        lists: The values of each field.
        most: How many combinations there may be.
        what: What each is, in the plural.
    """
    check_count(math.prod(len(values) for values in lists), most, what)


def check_count(count: int, most: int, what: str) -> None:
    """Raise `ConfigurationError` if there are too many of something."""
    if count > most:
        raise ConfigurationError(f"The study has {count:,} {what}, and may have {most:,}.", hint=_HINT)


def check_trials(tags: Iterable[frozenset[str]], methods: Iterable[tuple[frozenset[str], int]]) -> None:
    """Raise `ConfigurationError` if a study has too many trials, counted with one threat model each.

    Args:
        tags: The tags of each target.
        methods: (tags of which a target must have one, number of seeds) of each attack and detector.
    """
    seeds: Counter[frozenset[str]] = Counter()
    for only, count in methods:
        seeds[only] += count
    total = 0
    for tagged, targets in Counter(tags).items():
        total += targets * sum(count for only, count in seeds.items() if not only or only & tagged)
    check_count(total, MOST_TRIALS, "trials")
