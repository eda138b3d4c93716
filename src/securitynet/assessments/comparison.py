"""Compares two results: two versions of a model, or one model with and without a change such as quantisation.

Where both results scored the same records, differences are paired: the AUC by DeLong's variance for the same records,
accuracies by the records on which the two differ. Differences of all other measurements are those of independent
estimates, whose intervals are too wide rather than too narrow for the same records.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import ValidationError

from securitynet.assessments.paired_records import PairedRecords, pair_records, read_stored_scores
from securitynet.errors import ConfigurationError, RefusedFile
from securitynet.metrics import paired, paired_auc, rates, roc
from securitynet.records import Direction, Measurement
from securitynet.results.comparison import ChangedRecord, ExposureChange, MeasuredDifference, ResultComparison
from securitynet.results.document import ResultDocument, read_document
from securitynet.results.store import TrialStore
from securitynet.untrusted import open_regular

logger = logging.getLogger(__name__)

MOST_NAMED = 100
RESULT_FILE = "result.json"


@dataclass(frozen=True, eq=False)
class StoredResult:
    """A result with its trial files.

    Attributes:
        document: Content of ``result.json``.
        store: The trial files beside it.
        names: Record -> its file, from ``exposed.csv``.
        folder: The folder in which it lies.
    """

    document: ResultDocument
    store: TrialStore
    names: Mapping[int, str]
    folder: Path


def read_result(path: Path) -> StoredResult:
    """Read a result from its folder, or from the path of its ``result.json``.

    Raises:
        ConfigurationError: If there is none, or the file is not one.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigurationError(
            f"There is no result at {path}.", hint="Name the folder of an assessment, or its result.json."
        )
    try:
        document = read_document(file)
    except (ValidationError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{file} is not a result of an assessment.", hint="Name the folder of an assessment, or its result.json."
        ) from error
    return StoredResult(document, TrialStore(file.parent), read_names(file.parent / "exposed.csv"), file.parent)


def read_names(path: Path) -> dict[int, str]:
    """Record -> its file, from an ``exposed.csv``; empty if there is none, or it can't be read (which is logged)."""
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as stream:
            return {int(row["record"]): row["file"] for row in csv.DictReader(stream)}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, ValueError, TypeError, csv.Error, RefusedFile) as error:
        logger.warning("The names of records can't be read: %s (%s)", path, error)
        return {}


def compare_results(old: StoredResult, new: StoredResult) -> ResultComparison:
    """Compare a result with an earlier one.

    Args:
        old: The earlier result.
        new: This result.

    Raises:
        ConfigurationError: If no measurement has a value in both.
    """
    notes = []
    same_data = old.document.dataset.fingerprint == new.document.dataset.fingerprint
    if not same_data:
        notes.append("The results are about different images, so that their records cannot be paired.")
    scored = pair_records(old.document, new.document, (read_stored_scores(old.store), read_stored_scores(new.store)))
    if same_data and not scored:
        notes.append("No membership attack of both results has stored scores, so that records cannot be paired.")
    records = max((len(one.records) for one in scored.values()), default=0)
    totals = [r.document.dataset.members + r.document.dataset.non_members for r in (old, new)]
    if 0 < records < 0.9 * min(totals):
        notes.append(f"{records:,} records are members, or non-members, in both results; only these are paired.")
    same_model = old.document.target.checksum == new.document.target.checksum
    if same_model:
        notes.append("Both results are about the same model, with the same weights.")
    differences = measure_differences(old.document, new.document, scored)
    if not differences:
        raise ConfigurationError(
            "The two results have no measurement in common.", hint="Assess both models with the same attacks."
        )
    names = {**old.names, **new.names}
    return ResultComparison(
        against=old.document.created,
        old_model=_name_model(old.document),
        new_model=_name_model(new.document),
        records=records,
        notes=tuple(notes),
        differences=tuple(differences),
        exposure=tuple(
            change
            for trial, one in scored.items()
            if (change := _compare_exposure(trial, one, _find_share(trial, old.document, new.document), names))
        ),
    )


def _name_model(document: ResultDocument) -> str:
    return f"{document.target.reference} ({document.target.checksum[:12]})"


def measure_differences(
    old: ResultDocument, new: ResultDocument, scored: Mapping[str, PairedRecords]
) -> list[MeasuredDifference]:
    """The differences of all measurements of both; without pairs, those of one model on other records show nothing.

    Args:
        old: The result that is subtracted.
        new: The result from which it is subtracted.
        scored: The records by which they are paired; see `pair_records`.
    """
    same_records = old.dataset.split_fingerprint == new.dataset.split_fingerprint
    comparable = same_records or old.target.checksum != new.target.checksum
    earlier = {m.name: m for m in old.measurements if m.value is not None}
    correct = next((one for one in scored.values() if one.correct is not None), None)
    rows = []
    for measurement in new.measurements:
        other = earlier.get(measurement.name)
        # A verdict or a label is no quantity, a lower bound no estimate, and a control says nothing about the model:
        # their differences mean nothing.
        no_quantity = measurement.name.endswith((".verdict", "-label", ".blind-auc"))
        if measurement.value is None or other is None or no_quantity:
            continue
        if "lower-bound" in measurement.name or measurement.name.startswith(
            ("membership.blind.", "membership.copies.")
        ):
            continue
        of_pairs = _pair_difference(measurement, scored, correct)
        difference = of_pairs or rates.subtract_measurement(measurement, other)
        rows.append(
            MeasuredDifference(
                name=measurement.name,
                old=other.value or 0.0,
                new=measurement.value,
                difference=difference,
                paired=of_pairs is not None,
                verdict=_judge(difference) if comparable or of_pairs else "other records",
            )
        )
    return rows


def _pair_difference(
    measurement: Measurement, scored: Mapping[str, PairedRecords], correct: PairedRecords | None
) -> Measurement | None:
    trial, _, measure = measurement.name.rpartition(".")
    if measure == "auc" and trial in scored:
        one = scored[trial]
        return paired_auc.measure_auc_difference(measurement.name, *one.scores, one.is_member, level=measurement.level)
    groups = {"target.train_accuracy": True, "target.test_accuracy": False}
    if measurement.name in groups and correct is not None and correct.correct is not None:
        rows = correct.is_member == groups[measurement.name]
        first, second = correct.correct
        return paired.measure_paired_difference(
            measurement.name, second[rows], first[rows], direction=measurement.direction, level=measurement.level
        )
    return None


def _judge(difference: Measurement) -> Any:
    assert difference.low is not None and difference.high is not None
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    risen = difference.low > 0
    return "worse" if risen == (difference.direction is Direction.LOWER) else "better"


def _find_share(trial: str, old: ResultDocument, new: ResultDocument) -> float:
    """The lowest false-positive rate that both results resolve for an attack; a tenth if there is none."""
    resolved = [
        {
            float(m.name.rpartition("tpr@fpr=")[2])
            for m in document.measurements
            if m.name.startswith(f"{trial}.tpr@fpr=") and m.value is not None
        }
        for document in (old, new)
    ]
    return min(resolved[0] & resolved[1], default=0.1)


def _compare_exposure(trial: str, one: PairedRecords, share: float, names: Mapping[int, str]) -> ExposureChange | None:
    members = one.records[one.is_member]
    old, new = (_share_as_high(scores, one.is_member) for scores in one.scores)
    newly, no_longer = np.flatnonzero((new <= share) & (old > share)), np.flatnonzero((old <= share) & (new > share))

    def name(rows: NDArray[np.int64], by: NDArray[np.float64]) -> tuple[ChangedRecord, ...]:
        order = rows[np.argsort(by[rows], kind="stable")][:MOST_NAMED]
        return tuple(
            ChangedRecord(
                record=int(members[row]),
                file=names.get(int(members[row])),
                old_share=float(old[row]),
                new_share=float(new[row]),
            )
            for row in order
        )

    total = len(newly) + len(no_longer)
    return ExposureChange(
        trial=trial,
        share=share,
        newly=name(newly, new),
        no_longer=name(no_longer, old),
        newly_count=len(newly),
        no_longer_count=len(no_longer),
        p_value=float(scipy.stats.binomtest(len(newly), total).pvalue) if total else 1.0,
    )


def _share_as_high(scores: NDArray[np.float64], is_member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each member, the share of the non-members that score at least as high."""
    return roc.count_share(scores[~is_member], scores[is_member])
