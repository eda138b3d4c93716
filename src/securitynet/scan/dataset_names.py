"""Datasets that names and texts mention."""

from __future__ import annotations

import functools
import itertools
import re

from securitynet.catalog.known import DatasetFacts, find_dataset_facts

_WORD = re.compile(r"[a-z]+|\d+", re.IGNORECASE)
_ORDINARY = frozenset({"digits"})
"""Names of datasets that are ordinary words of what others show, too: alone in a text they name none."""

_LONGEST = 5
"""Words and numbers of the longest name of a dataset in a text."""


def find_named_dataset(name: str) -> str | None:
    """The dataset that a name or one of its parts names: ``CIFAR100_TRAIN_MEAN``.

    Args:
        name: Of a variable, a key or an option.
    """
    for part in (name, *re.split(r"[^A-Za-z0-9]+", name)):
        facts = _find(part) if part else None
        if facts is not None:
            return facts.name
    return None


def list_named_datasets(text: str) -> list[str]:
    """Datasets with classes that a text names, each once; of names in names, the longer (Fashion-MNIST, not MNIST).

    Args:
        text: Prose, code or a path.
    """
    parts = [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text)]
    named: dict[str, None] = {}
    start = 0
    while start < len(parts):
        run = [parts[start]]
        for before, after in itertools.pairwise(parts[start : start + _LONGEST]):
            if after[1] - before[2] > 1:
                break  # more than one character between two words
            run.append(after)
        length = 1
        for count in range(len(run), 0, -1):
            name = "".join(word for word, _, _ in run[:count])
            facts = _find(name) if name.lower() not in _ORDINARY else None
            if facts is not None and facts.codes.get("classes"):
                named[facts.name], length = None, count
                break
        start += length
    return list(named)


@functools.lru_cache(maxsize=1 << 16)
def _find(name: str) -> DatasetFacts | None:
    """As `find_dataset_facts`, for the same words again and again."""
    return find_dataset_facts(name[:200])
