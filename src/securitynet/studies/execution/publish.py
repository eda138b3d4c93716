"""Publishes results to the catalog: measured values of its entries, each with the trial it comes from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from securitynet.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.records import Measurement
from securitynet.results.index import Index
from securitynet.results.study_targets import target_key


@dataclass
class PublishSummary:
    """The effect of publishing.

    Attributes:
        entries: Number of catalog entries that have values now.
        values: Number of values that are new or different.
        without: Number of targets that are not in the catalog.
    """

    entries: int = 0
    values: int = 0
    without: int = 0


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
            entry_of[record.means.key] = record.catalog
            by_entry[record.catalog] += _list_values(record.measurements, f"subject:{record.key}")
    for trial in index.trials():
        spec = trial.spec
        entry = entry_of.get(target_key(spec.target, spec.dataset, spec.split, spec.precision))
        if entry is not None and trial.status == "ok":
            by_entry[entry] += _list_values(trial.measurements, trial.id)
    for entry, measured in by_entry.items():
        summary.values += catalog.record(entry, measured)
        summary.entries += 1
    return summary


def _list_values(measurements: tuple[Measurement, ...], source: str) -> list[Measured]:
    return [
        Measured(m.name, m.value, "trial", source, low=m.low, high=m.high) for m in measurements if m.value is not None
    ]
