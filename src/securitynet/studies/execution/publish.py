"""Publishing results back to the catalog: measured values of its entries, each with the trial it comes from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from securitynet.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.records import Measurement
from securitynet.results.index import Index
from securitynet.results.subjects import subject_key


@dataclass
class Published:
    """What publishing did.

    Attributes:
        entries: Entries of the catalog that have values now.
        values: Values that are new or different.
        without: Targets that are no entry of the catalog.
    """

    entries: int = 0
    values: int = 0
    without: int = 0


def publish(index: Index, catalog: Catalog) -> Published:
    """Record all values of targets that are entries of the catalog. Doing it twice changes nothing.

    A value's source is its trial's id; that of a target's accuracy is the key of its subject file, after ``subject:``.
    """
    found = Published()
    by_entry: defaultdict[str, list[Measured]] = defaultdict(list)
    entry_of: dict[str, str] = {}
    for subject in index.subjects():
        if subject.catalog is None:
            found.without += 1
        elif subject.means is not None:
            entry_of[subject.means.key] = subject.catalog
            by_entry[subject.catalog] += _measured(subject.measurements, f"subject:{subject.key}")
    for trial in index.trials():
        spec = trial.spec
        entry = entry_of.get(subject_key(spec.target, spec.dataset, spec.split, spec.precision))
        if entry is not None and trial.status == "ok":
            by_entry[entry] += _measured(trial.measurements, trial.id)
    for entry, measured in by_entry.items():
        found.values += catalog.record(entry, measured)
        found.entries += 1
    return found


def _measured(measurements: tuple[Measurement, ...], source: str) -> list[Measured]:
    return [
        Measured(m.name, m.value, "trial", source, low=m.low, high=m.high) for m in measurements if m.value is not None
    ]
