"""Distinct names for the targets on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from securitynet.results.document import ResultDocument


def make_distinct(documents: Sequence[ResultDocument]) -> list[str]:
    """One short name per target, no two alike.

    It is the reference; where several share it, what differs in the paths of their weights files; else a number.
    """
    references = [document.target.reference for document in documents]
    if len(set(references)) == len(references):
        return references
    paths = [_weights(document) for document in documents]
    start, end = _common(paths), _common([path[::-1] for path in paths])
    names = []
    for reference, path in zip(references, paths, strict=True):
        different = "/".join(path[start : max(len(path) - end, start)])
        names.append(different if len(set(references)) == 1 and different else _joined(reference, different))
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)]


def _weights(document: ResultDocument) -> tuple[str, ...]:
    """Parts of the path of a target's weights file, without its suffix; none if there is no file."""
    weights = document.settings.get("weights")
    return PurePath(str(weights)).with_suffix("").parts if weights else ()


def _joined(reference: str, different: str) -> str:
    return f"{reference}, {different}" if different else reference


def _common(paths: Sequence[Sequence[str]]) -> int:
    """Length of the longest common beginning."""
    length = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        length += 1
    return length
