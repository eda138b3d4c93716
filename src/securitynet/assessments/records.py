"""The records behind the scores: their files, classes, predictions and the scores of each attack."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership.base import MembershipScores
from securitynet.datasets.ordering import union
from securitynet.files import atomic_write
from securitynet.metrics.exposure import most_exposed
from securitynet.results.document import ExposedMember, ExposedMembers

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment

COUNT = 12
"""Number of members that ``result.json`` lists for each attack; ``exposed.csv`` lists all of them."""


def scored_trials(assessment: Assessment) -> dict[str, MembershipScores]:
    """Return the scores of each finished membership trial, by its name."""
    return {trial.name: trial.output for trial in assessment.trials if isinstance(trial.output, MembershipScores)}


def list_exposed(assessment: Assessment, count: int = COUNT) -> tuple[ExposedMembers, ...]:
    """Return the members with the highest scores of each membership attack, with their files."""
    dataset = assessment.assessed_target.dataset
    exposed = []
    for name, scores in scored_trials(assessment).items():
        exposure = most_exposed(scores.indices, scores.scores, scores.is_member, count)
        signals = assessment.signals.select(np.array([record.index for record in exposure.records], dtype=np.int64))
        members = tuple(
            ExposedMember(
                record=record.index,
                file=dataset.get_record_name(record.index),
                label=dataset.class_names[int(signals.labels[row])],
                prediction=dataset.class_names[int(signals.predictions[row])],
                score=record.score if np.isfinite(record.score) else None,
                rank=record.rank,
                non_members_as_high=record.false_positives,
            )
            for row, record in enumerate(exposure.records)
        )
        exposed.append(
            ExposedMembers(
                trial=name,
                members=members,
                tied=exposure.tied_with_last,
                non_members=int((~scores.is_member).sum()),
            )
        )
    return tuple(exposed)


def write_records(assessment: Assessment, path: Path) -> bool:
    """Write ``exposed.csv``: a row for each scored record, members first, the most exposed of them at the top.

    Columns: ``record`` (its number in the dataset), ``file``, ``member`` (1 or 0), ``class``, ``prediction``,
    ``posterior`` of the prediction (empty if it is hidden), and for each membership attack its ``score`` and the
    ``share`` of the non-members that score at least as high. Rows are in the order of the lowest share of any attack.

    Args:
        assessment: The assessment, with the raw outputs of its trials.
        path: Path of the file.

    Returns:
        Whether there was anything to write.
    """
    trials = scored_trials(assessment)
    if not trials:
        return False
    dataset, everything = assessment.assessed_target.dataset, union(*(scores.indices for scores in trials.values()))
    signals = assessment.signals.select(everything)
    is_member = np.isin(everything, assessment.assessed_target.splits.members)
    columns: list[NDArray[np.float64]] = []
    for scores in trials.values():
        at = np.searchsorted(everything, scores.indices)
        for values in (scores.scores, share_as_high(scores)):
            column = np.full(len(everything), np.nan)
            column[at] = values
            columns.append(column)
    table = np.stack(columns, axis=1)
    lowest = np.nanmin(table[:, 1::2], axis=1)
    posteriors = None if signals.head == "labels" else signals.posteriors
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    names = [f"{what}:{name}" for name in trials for what in ("score", "share")]
    writer.writerow(["record", "file", "member", "class", "prediction", "posterior", *names])
    for row in np.lexsort((everything, lowest, ~is_member)):
        predicted = int(signals.predictions[row])
        writer.writerow(
            [
                int(everything[row]),
                dataset.get_record_name(int(everything[row])),
                int(is_member[row]),
                dataset.class_names[int(signals.labels[row])],
                dataset.class_names[predicted],
                "" if posteriors is None else f"{float(posteriors[row, predicted]):.6g}",
                *("" if np.isnan(value) else f"{value:.9g}" for value in table[row]),
            ]
        )
    with atomic_write(path) as out:
        out.write(stream.getvalue().encode("utf-8"))
    return True


def share_as_high(scores: MembershipScores) -> NDArray[np.float64]:
    """Return, for each record, the share of the non-members that score at least as high, in [0, 1]."""
    others = np.sort(scores.scores[~scores.is_member])
    shares: NDArray[np.float64] = (len(others) - np.searchsorted(others, scores.scores, side="left")) / len(others)
    return shares
