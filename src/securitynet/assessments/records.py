"""The records behind the scores: their files, classes, predictions and the scores of each attack."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership._scores import MembershipScores
from securitynet.datasets.ordering import unite
from securitynet.escaping import escape_formula
from securitynet.files import write_atomically
from securitynet.metrics import roc
from securitynet.metrics.exposure import rank_most_exposed
from securitynet.results.document import ExposedMember, ExposedMembers

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment

COUNT = 12
"""Number of members that ``result.json`` lists for each attack; ``exposed.csv`` lists all of them."""


def collect_scores(assessment: Assessment) -> dict[str, MembershipScores]:
    """Return the scores of each finished membership trial, by its name."""
    return {trial.name: trial.output for trial in assessment.trials if isinstance(trial.output, MembershipScores)}


def list_exposed(assessment: Assessment, count: int = COUNT) -> tuple[ExposedMembers, ...]:
    """Return the members with the highest scores of each membership attack, with their files."""
    dataset = assessment.assessed_target.dataset
    exposed = []
    for name, scores in collect_scores(assessment).items():
        exposure = rank_most_exposed(scores.indices, scores.scores, scores.is_member, count)
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


@dataclass(frozen=True)
class RecordTable:
    """All scored records: members first, the most exposed of them at the top.

    Attributes:
        trials: Names of the membership trials, in the order of their columns.
        records: Their numbers in the dataset, N.
        is_member: N.
        labels: Class of each, N.
        predictions: The class that the target predicts, N.
        posteriors: Of the prediction, N; NaN where the outputs hide it.
        scores: Each trial's, N×T; NaN where a trial did not score the record.
        shares: Of the non-members that score at least as high, N×T, in [0, 1]; NaN likewise.
    """

    trials: tuple[str, ...]
    records: NDArray[np.int64]
    is_member: NDArray[np.bool_]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    posteriors: NDArray[np.float64]
    scores: NDArray[np.float64]
    shares: NDArray[np.float64]


def tabulate_records(assessment: Assessment) -> RecordTable | None:
    """The scored records, in the order of the lowest share that any attack gives them; None if no attack scored any."""
    trials = collect_scores(assessment)
    if not trials:
        return None
    everything = unite(*(scores.indices for scores in trials.values()))
    signals = assessment.signals.select(everything)
    is_member = np.isin(everything, assessment.assessed_target.splits.members)
    scores = np.full((len(everything), len(trials)), np.nan)
    shares = scores.copy()
    for column, output in enumerate(trials.values()):
        at = np.searchsorted(everything, output.indices)
        scores[at, column], shares[at, column] = output.scores, rank_among_non_members(output)
    order = np.lexsort((everything, np.nanmin(shares, axis=1), ~is_member))
    predictions = signals.predictions
    posteriors = np.full(len(everything), np.nan)
    if signals.head != "labels":
        posteriors = signals.posteriors[np.arange(len(everything)), predictions].astype(np.float64)
    return RecordTable(
        tuple(trials),
        everything[order],
        is_member[order],
        signals.labels[order],
        predictions[order],
        posteriors[order],
        scores[order],
        shares[order],
    )


def write_records(assessment: Assessment, path: Path) -> bool:
    """Write ``exposed.csv``: a row for each scored record, in the order of `tabulate_records`.

    Columns: ``record`` (its number in the dataset), ``file``, ``member`` (1 or 0), ``class``, ``prediction``,
    ``posterior`` of the prediction (empty if it is hidden), and for each membership attack its ``score`` and the
    ``share`` of the non-members that score at least as high.

    Args:
        assessment: The assessment, with the raw outputs of its trials.
        path: Path of the file.

    Returns:
        Whether there was anything to write.
    """
    table = tabulate_records(assessment)
    if table is None:
        return False
    dataset = assessment.assessed_target.dataset
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    names = [f"{what}:{name}" for name in table.trials for what in ("score", "share")]
    writer.writerow(["record", "file", "member", "class", "prediction", "posterior", *names])
    classes = [escape_formula(name) for name in dataset.class_names]
    pairs = np.stack([table.scores, table.shares], axis=2).reshape(len(table.records), -1)
    columns = (table.records, table.is_member.astype(int), table.labels, table.predictions, table.posteriors, pairs)
    for record, member, label, prediction, posterior, values in zip(*(one.tolist() for one in columns), strict=True):
        writer.writerow(
            [
                record,
                escape_formula(dataset.get_record_name(record)),
                member,
                classes[label],
                classes[prediction],
                "" if math.isnan(posterior) else f"{posterior:.6g}",
                *("" if math.isnan(value) else f"{value:.9g}" for value in values),
            ]
        )
    with write_atomically(path) as out:
        out.write(stream.getvalue().encode("utf-8"))
    return True


def rank_among_non_members(scores: MembershipScores) -> NDArray[np.float64]:
    """Return, for each record, the share of the non-members that score at least as high, in [0, 1]."""
    return roc.count_share(scores.scores[~scores.is_member], scores.scores)
