"""The records that two results scored alike, from their trial files or from assessments that still are in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership._scores import MembershipScores
from securitynet.results.document import ResultDocument, TrialSummary
from securitynet.results.score_arrays import have_scores
from securitynet.results.store import TrialStore

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment

FEWEST_RECORDS = 8

ReadScores = Callable[[TrialSummary], Mapping[str, NDArray[Any]] | None]
"""Returns ``indices``, ``scores``, ``is_member`` and, where known, ``correct`` of a trial; None if it has no scores."""


@dataclass(frozen=True, eq=False)
class PairedRecords:
    """The scores of one trial for the records that both results scored.

    Attributes:
        records: Their numbers, N ascending.
        is_member: N.
        scores: Of the first and of the second result, N each.
        correct: Whether the predictions are right, N each; None where not stored.
    """

    records: NDArray[np.int64]
    is_member: NDArray[np.bool_]
    scores: tuple[NDArray[np.float64], NDArray[np.float64]]
    correct: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None


def read_stored_scores(store: TrialStore) -> ReadScores:
    """Scores in trial files, without the records that are not evaluated."""

    def read(trial: TrialSummary) -> Mapping[str, NDArray[Any]] | None:
        stored = store.load(trial.id)
        arrays = store.load_arrays(stored) if stored is not None else None
        if arrays is None or not have_scores(arrays, "indices"):
            return None
        keep = ~np.isin(arrays["indices"], arrays.get("left_out", np.array([], dtype=np.int64)))
        return {name: arrays[name][keep] for name in ("indices", "scores", "is_member", "correct") if name in arrays}

    return read


def read_assessed_scores(assessment: Assessment) -> ReadScores:
    """Scores of an assessment; its trials hold only records that are evaluated."""
    outputs = {trial.name: trial.output for trial in assessment.trials}

    def read(trial: TrialSummary) -> Mapping[str, NDArray[Any]] | None:
        output = outputs.get(trial.name)
        if not isinstance(output, MembershipScores):
            return None
        arrays = {"indices": output.indices, "scores": output.scores, "is_member": output.is_member}
        return arrays if output.correct is None else {**arrays, "correct": output.correct}

    return read


def pair_records(
    first: ResultDocument, second: ResultDocument, read: tuple[ReadScores, ReadScores]
) -> dict[str, PairedRecords]:
    """The records that both results scored with the same membership, for each membership attack of both.

    Args:
        first: One result.
        second: The other; nothing is paired unless it is about the same images.
        read: How to read the scores of each.

    Returns:
        Trial's name -> its records. Attacks of different settings, and those with fewer than `FEWEST_RECORDS` common
        members or non-members, are left out.
    """
    if first.dataset.fingerprint != second.dataset.fingerprint:
        return {}
    earlier = {trial.name: trial for trial in first.trials}
    paired = {}
    for trial in second.trials:
        other = earlier.get(trial.name)
        if other is None or not trial.name.startswith("membership.") or {trial.status, other.status} != {"ok"}:
            continue
        if trial.configuration != other.configuration:
            continue
        tables = read[0](other), read[1](trial)
        if tables[0] is None or tables[1] is None:
            continue
        one = _pair(tables[0], tables[1])
        if one is not None:
            paired[trial.name] = one
    return paired


def _pair(first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]) -> PairedRecords | None:
    records, at_first, at_second = np.intersect1d(
        first["indices"], second["indices"], assume_unique=True, return_indices=True
    )
    same = first["is_member"][at_first] == second["is_member"][at_second]
    records, at_first, at_second = records[same], at_first[same], at_second[same]
    is_member = second["is_member"][at_second]
    if min(int(is_member.sum()), int((~is_member).sum())) < FEWEST_RECORDS:
        return None
    known = "correct" in first and "correct" in second
    return PairedRecords(
        records,
        is_member,
        (first["scores"][at_first], second["scores"][at_second]),
        (first["correct"][at_first], second["correct"][at_second]) if known else None,
    )
