"""Publishes results to the catalog: measured values of its entries, each with the trial it comes from.

A value is published under an entry only if it was measured on the entry's own weights. Otherwise the catalog would pass
on what was measured on other weights, or on a network that was never trained.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from securitynet.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.catalog.weights import compare_checksums, names_weights
from securitynet.errors import SecurityNetError
from securitynet.models.sources.references import parse_reference
from securitynet.records import Measurement
from securitynet.results.index import Index
from securitynet.results.study_targets import StudyTargetRecord, make_target_key

CATALOG_NAMES = {
    "target.train_accuracy": "accuracy.train",
    "target.test_accuracy": "accuracy.test",
    "target.overfitting": "accuracy.gap",
}
"""Names that the catalog has for what an assessment measures of a target: those of the published tables, so that models
are compared by one name, whoever measured them."""


@dataclass
class PublishSummary:
    """The effect of publishing.

    Attributes:
        entries: Number of catalog entries that have values now.
        values: Number of values that are new or different.
        without: Number of targets that are not in the catalog.
        refused: Label of each target whose weights are not known to be those of its entry -> the reason.
    """

    entries: int = 0
    values: int = 0
    without: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def publish(index: Index, catalog: Catalog) -> PublishSummary:
    """Record all values of targets that are entries of the catalog; repeating it changes nothing.

    The source of a value is the id of its trial; that of a target's accuracy is the key of its file after ``subject:``.
    """
    summary = PublishSummary()
    by_entry: defaultdict[str, list[Measured]] = defaultdict(list)
    entry_of: dict[str, str] = {}
    for record in index.target_records():
        if record.catalog is None:
            summary.without += 1
        elif record.means is not None:
            obstacle = find_publishing_obstacle(record, catalog)
            if obstacle is not None:
                summary.refused[record.label] = obstacle
                continue
            entry_of[record.means.key] = record.catalog
            by_entry[record.catalog] += _list_values(record.measurements, f"subject:{record.key}")
    for trial in index.trials():
        spec = trial.spec
        entry = entry_of.get(make_target_key(spec.target, spec.dataset, spec.split, spec.precision))
        if entry is not None and trial.status == "ok":
            by_entry[entry] += _list_values(trial.measurements, trial.id)
    for entry, measured in by_entry.items():
        summary.values += catalog.record(entry, measured)
        summary.entries += 1
    return summary


def find_publishing_obstacle(record: StudyTargetRecord, catalog: Catalog) -> str | None:
    """The reason not to publish the values of a target under its entry; None if there is none."""
    try:
        entry = catalog.get(str(record.catalog))
    except SecurityNetError as error:
        return error.message
    compared = [check for check in record.checks if check.what == "checksum"]
    if not all(check.agrees for check in compared):
        return "its weights do not have the stated checksum"
    verdicts = [compare_checksums(_with_kind(check.found), entry.checksum) for check in compared]
    if False in verdicts:
        return f"its weights are not those of {entry.key}, whose checksum is {entry.checksum}"
    if True in verdicts:
        return None
    model = str(record.declared.get("model", ""))
    given = "weights" in record.declared or "train" in record.declared
    if not given and not names_weights(model):
        return f"no weights were given, and {model} names a network only"
    if not given and entry.reference is not None and names_weights(entry.reference):
        same = model == str(parse_reference(entry.reference).without_folders())
        return None if same else f"its model is {model}, not {entry.reference}"
    if entry.checksum is None:
        return None
    return f"its weights were not compared with the checksum of {entry.key}, {entry.checksum}: run the study again"


def _with_kind(digest: str) -> str:
    return digest if ":" in digest else f"sha256:{digest}"


def _list_values(measurements: tuple[Measurement, ...], source: str) -> list[Measured]:
    return [
        Measured(CATALOG_NAMES.get(m.name, m.name), m.value, "trial", source, low=m.low, high=m.high)
        for m in measurements
        if m.value is not None
    ]
