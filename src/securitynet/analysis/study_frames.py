"""The tidy frame of a study, from its subject and trial files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas

from securitynet.analysis.frames import ANNOTATIONS, parse_name, tidy
from securitynet.catalog.known import completed, dataset_name
from securitynet.records import Measurement, TrialResult
from securitynet.results.store import TrialStore
from securitynet.results.subjects import SubjectRecord, SubjectStore, subject_key


def from_study(folder: Path | str) -> pandas.DataFrame:
    """All measured values under a study's root: one case a subject, and its annotations as far as they are known.

    Annotations come from the catalog where the study file links a model to it, and else from the name of the
    architecture and of the dataset. Of trials that failed or were skipped there are no rows.
    """
    rows: list[dict[str, Any]] = []
    known: dict[str, dict[str, Any]] = {}
    for record in SubjectStore(folder):
        if record.means is None:
            continue
        means = record.means
        case = describe(record)
        known[subject_key(means.target, means.dataset, means.split, means.precision)] = case
        rows += [{**case, **values(measurement)} for measurement in record.measurements]
    for result in TrialStore(folder):
        spec = result.spec
        of = known.get(subject_key(spec.target, spec.dataset, spec.split, spec.precision))
        if result.status == "ok" and of is not None:
            rows += list(_trial_rows(result, of))
    return tidy(rows)


def describe(record: SubjectRecord) -> dict[str, Any]:
    """What is known about a subject, by the columns of a tidy frame."""
    assert record.means is not None
    training = record.training or {}
    reference = record.means.target.reference
    architecture = training.get("architecture") or record.codes.get("architecture") or reference.partition(":")[2]
    codes = {"architecture": architecture, "dataset": dataset_name(record.means.dataset.reference.partition("@")[0])}
    given = {name: value for name, value in record.codes.items() if name in ANNOTATIONS}
    entry, _ = completed({"key": record.key, "source": "study", "name": record.label, **codes, **given})
    annotations = {name: getattr(entry, name) for name in ANNOTATIONS}
    annotations["family"] = annotations["family"] or architecture
    recipe = training.get("recipe") or {}
    return {
        "case": record.key,
        "model": record.label,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in annotations.items()},
        "defense": _defense(record),
        "epochs": recipe.get("epochs"),
        "seed": recipe.get("seed"),
    }


def values(measurement: Measurement) -> dict[str, Any]:
    """A measurement's name and numbers, by columns."""
    numbers = {name: getattr(measurement, name) for name in ("value", "low", "high", "level", "n")}
    return {**parse_name(measurement.name), **numbers}


def _trial_rows(result: TrialResult, case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = result.spec
    how = {
        "method": spec.method.rpartition(".")[2],
        "access": spec.threat_model.access.value,
        "auxiliary": spec.threat_model.auxiliary.value,
        "seconds": sum(result.seconds.values()),
    }
    changed = changes(spec.kind, spec.method, spec.configuration)
    for measurement in result.measurements:
        found = values(measurement)
        settings = {**changed, **json.loads(found["settings"])}
        yield {**case, **found, **how, "settings": json.dumps(settings, sort_keys=True)}


def changes(kind: str, method: str, configuration: dict[str, Any]) -> dict[str, Any]:
    """The settings of a method that are not its defaults; all of them if this version does not know it."""
    from securitynet.errors import SecurityNetError
    from securitynet.studies.methods import REGISTRIES

    try:
        defaults = REGISTRIES["attack" if kind == "attack" else "detector"].get(method)().model_dump(mode="json")
    except SecurityNetError:
        return configuration
    return {name: value for name, value in configuration.items() if defaults.get(name) != value}


def _defense(record: SubjectRecord) -> str | None:
    """The defense of a subject: the one it was trained with, or the one at its output."""
    trained = (record.training or {}).get("defense")
    at_output = record.declared.get("defense")
    names = [item if isinstance(item, str) else str(item.get("name", item)) for item in (trained, at_output) if item]
    return " + ".join(dict.fromkeys(names)) or None
