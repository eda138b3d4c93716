"""Ranks collected results: for each dataset, models by what attacks and detectors measured on them.

A rank follows from intervals: it is one more than the number of models whose interval lies wholly on the better side.
Models that the measurements do not tell apart share a rank. What cannot be compared is listed without one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from securitynet.records import FAMILIES, Direction, Measurement
from securitynet.results.collection import CollectedResult, Collection

MOST_COLUMNS = 40
"""Measurements that are shown of a dataset: those of the most models."""

ACCURACY = "target.test_accuracy"


@dataclass(frozen=True)
class MeasuredModel:
    """One model as one party measured it.

    Attributes:
        result: The result.
        measurements: By name; finite values only.
        rank: By the chosen measurement, from 1; None if it is not ranked.
        why_not: Why it has no rank; empty if it has one.
    """

    result: CollectedResult
    measurements: dict[str, Measurement]
    rank: int | None
    why_not: str


@dataclass(frozen=True)
class Board:
    """The models that were measured on one dataset.

    Attributes:
        fingerprint: Of the dataset; results with the same name and other images are another board.
        name: The dataset's name, as the first result gives it.
        columns: Names of the measurements, those of the most models first within each family.
        left_out: Further measurements, of fewer models.
        by: The measurement that ranks; empty if there is none.
        direction: Which of its values are better for the owner of a model.
        rows: Ranked ones first.
    """

    fingerprint: str
    name: str
    columns: tuple[str, ...]
    left_out: int
    by: str
    direction: Direction
    rows: tuple[MeasuredModel, ...]


def make_boards(collection: Collection, by: str = "") -> list[Board]:
    """A leaderboard for each dataset, those with the most results first.

    Args:
        collection: The results.
        by: The measurement that ranks where it was measured; by default that of the most models.
    """
    groups: dict[str, list[CollectedResult]] = {}
    for result in collection.results:
        groups.setdefault(result.document.dataset.fingerprint, []).append(result)
    boards = [_make_board(fingerprint, group, by, collection.keys > 0) for fingerprint, group in groups.items()]
    return sorted(boards, key=lambda board: (-len(board.rows), board.name))


def choose_measurements(result: CollectedResult) -> dict[str, Measurement]:
    """The accuracy on non-members, and the main measurement of each finished trial.

    The main one is the first of the trial's headline; of membership attacks it is the AUC.
    """
    document = result.document
    finite = [m for m in document.measurements if all(math.isfinite(end or 0) for end in (m.value, m.low, m.high))]
    by_name = {measurement.name: measurement for measurement in finite}
    chosen = [ACCURACY]
    for trial in document.trials:
        if trial.status == "ok" and trial.name.partition(".")[0] in FAMILIES:
            auc = [f"{trial.name}.auc"] if trial.name.startswith("membership.") else []
            chosen += [name for name in (*auc, *trial.headline) if name in by_name][:1]
    return {name: by_name[name] for name in dict.fromkeys(chosen) if name in by_name}


def explain_no_rank(result: CollectedResult, by: str, *, need_signature: bool) -> str:
    """Why a result has no rank whatever its numbers are; empty if it can have one.

    Args:
        result: The result.
        by: The measurement that ranks.
        need_signature: Whether only results signed by a trusted key are ranked.
    """
    document = result.document
    if result.evidence == "changed":
        return "changed after it was signed or written"
    if need_signature and result.evidence == "unsigned":
        return "not signed"
    if need_signature and result.evidence == "unknown key":
        return "signed by an unknown key"
    if not all(check.agrees for check in document.target.checks):
        return "a check of the model failed"
    blind = document.controls.blind if document.controls is not None else None
    if by.startswith("membership.") and blind is not None and blind.differ:
        return "members and non-members differ even without the model"
    return ""


def _make_board(fingerprint: str, group: Sequence[CollectedResult], by: str, need_signature: bool) -> Board:
    measured = [(result, choose_measurements(result)) for result in group]
    counts = Counter(name for _, measurements in measured for name in measurements)
    common = sorted(counts, key=lambda name: (-counts[name], _ORDER.index(name.partition(".")[0]), name))
    if by not in counts:
        by = next((name for name in common if name != ACCURACY), ACCURACY)
    columns = sorted(common[:MOST_COLUMNS], key=lambda name: _ORDER.index(name.partition(".")[0]))
    reasons = [_explain(result, measurements.get(by), by, need_signature) for result, measurements in measured]
    comparable = [m[by] for (_, m), why_not in zip(measured, reasons, strict=True) if not why_not]
    directions = Counter(measurement.direction for measurement in comparable)
    direction = directions.most_common(1)[0][0] if directions else Direction.LOWER
    rows = [
        MeasuredModel(
            result,
            measurements,
            None if why_not else 1 + sum(is_better(other, measurements[by], direction) for other in comparable),
            why_not,
        )
        for (result, measurements), why_not in zip(measured, reasons, strict=True)
    ]
    sign = 1 if direction is Direction.LOWER else -1
    rows.sort(key=lambda row: (row.rank is None, row.rank or 0, _sort_value(row, by, sign), row.result.folder))
    name = group[0].document.dataset.reference
    return Board(fingerprint, name, tuple(columns), len(common) - len(columns), by, direction, tuple(rows))


_ORDER = ("target", *FAMILIES)


def _explain(result: CollectedResult, measurement: Measurement | None, by: str, need_signature: bool) -> str:
    why_not = explain_no_rank(result, by, need_signature=need_signature)
    if not why_not and measurement is None:
        return "not measured"
    if not why_not and measurement is not None and measurement.value is None:
        return "cannot be resolved with so few records"
    return why_not


def _sort_value(row: MeasuredModel, by: str, sign: int) -> float:
    measurement = row.measurements.get(by)
    return math.inf if measurement is None or measurement.value is None else sign * measurement.value


def is_better(first: Measurement, second: Measurement, direction: Direction) -> bool:
    """Whether the whole interval of the first lies on the better side of that of the second.

    Args:
        first: A measurement with an interval.
        second: Another of the same name.
        direction: Which values are better.
    """
    assert first.low is not None and first.high is not None and second.low is not None and second.high is not None
    return first.high < second.low if direction is Direction.LOWER else first.low > second.high
