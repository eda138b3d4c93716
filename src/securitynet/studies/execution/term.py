"""The term of a run: workers of an earlier run of a study write nothing once another run has begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from securitynet.records import TrialResult
from securitynet.results.root import Root
from securitynet.results.store import TrialStore

TERM = "term"
"""File that holds the mark of the last run that has begun."""


class TermOver(Exception):
    """Another run of the study has begun, and this worker's trial is that run's business now."""


class FencedStore(TrialStore):
    """Trial files, as long as the run that this belongs to is the last one.

    A worker may outlive its runner for a moment, or for long on a machine that was cut off. What it finishes then is
    run again by the next runner's workers, and must not be finished twice.
    """

    def __init__(self, root: Root, term: str) -> None:
        super().__init__(root)
        self._term = term

    @override
    def save(self, result: TrialResult, arrays: Mapping[str, NDArray[Any]] | None = None) -> TrialResult:
        check_term(self.files, self._term)
        return super().save(result, arrays)


def check_term(root: Root, term: str) -> None:
    """Raise `TermOver` unless this is the last run of a study that has begun."""
    try:
        current = root.read(TERM).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    if current != term:
        raise TermOver
