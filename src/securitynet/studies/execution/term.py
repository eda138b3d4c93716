"""The term of a run: workers of an earlier run stop writing once another run has begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from securitynet.records import TrialResult
from securitynet.results.root import Root
from securitynet.results.store import TrialStore
from securitynet.studies.execution.numbered_lock import has_successor

TERM = "term"
"""File with the mark of the run that began last."""


class TermOver(Exception):
    """Another run of the study has begun and takes over the trial of this worker."""


class FencedStore(TrialStore):
    """A store of trial files that refuses to write once another run has begun.

    A worker may outlive its runner, briefly or, on a machine that was cut off, for long. The workers of the next runner
    run its trial again, so it must not be written twice.

    Args:
        root: Root of the results.
        term: Mark of the run that this store belongs to.
    """

    def __init__(self, root: Root, term: str) -> None:
        super().__init__(root)
        self._term = term

    @override
    def save(self, result: TrialResult, arrays: Mapping[str, NDArray[Any]] | None = None) -> TrialResult:
        check_term(self.files, self._term)
        return super().save(result, arrays)


def check_term(root: Root, term: str) -> None:
    """Raise `TermOver` if another run of the study has begun.

    Args:
        root: Root of the results.
        term: Mark of the run; it begins with the number of its lock, if that has one.
    """
    number, colon, _ = term.partition(":")
    if colon:  # a mark could be written last by the runner that woke up last; numbers only grow
        if has_successor(root, int(number)):
            raise TermOver
        return
    try:
        current = root.read(TERM).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    if current != term:
        raise TermOver
