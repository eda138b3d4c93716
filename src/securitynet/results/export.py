"""Tidy tables of results: one row a measured value, with the target it was measured on, how, and at what cost.

Trials that failed or were skipped, and targets that could not be opened, have a row each without a value: a table from
which they were missing would look complete.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securitynet.errors import ConfigurationError
from securitynet.files import atomic_write
from securitynet.records import Measurement, TrialResult
from securitynet.results.index import Index
from securitynet.results.subjects import StudyTargetRecord, target_key

if TYPE_CHECKING:
    import pandas

Defaults = Callable[[str, str], Mapping[str, Any]]
"""(kind, full name of a method) -> its configuration when nothing is set."""

TARGET = (
    "case", "model", "reference", "checksum", "dataset", "split", "membership", "precision", "catalog",
    "num_classes", "members", "non_members", "architecture", "defense", "epochs", "seed",
    "target_train_accuracy", "target_test_accuracy", "target_overfitting", "as_said",
)  # fmt: skip
"""Columns about the target. ``case`` is the key of its subject file, ``seed`` that of its training."""

TRIAL = (
    "trial", "status", "reason", "kind", "attack", "method", "access", "auxiliary", "auxiliary_dataset", "settings",
    "trial_seed", "queries_total", "queries_unique", "seconds", "version", "finished",
)  # fmt: skip
"""Columns about the trial. ``attack`` is its family; ``settings`` are those that differ from the defaults, as JSON."""

VALUE = ("name", "measure", "at", "value", "low", "high", "level", "n", "direction", "interval", "note")
"""Columns about the value. ``measure`` is its name without the trial's, ``at`` what follows its ``@``."""

COLUMNS = (*TARGET, *TRIAL, *VALUE)

CHANGING = ("seconds", "version", "finished")
"""Columns that another run of the same study may fill otherwise."""

_WHOLE = (
    "num_classes", "members", "non_members", "epochs", "seed", "trial_seed", "queries_total", "queries_unique", "n",
)  # fmt: skip

_OWN = re.compile(r"(?P<measure>[^@]+?)(?:@(?P<at>[A-Za-z_-]+=.+))?$")


def to_frame(index: Index, defaults: Defaults | None = None) -> pandas.DataFrame:
    """All results as a tidy table, in an order that only the results decide.

    Columns are `COLUMNS`, then the codes of the catalog (``catalog.family``), then one for each setting of any method
    (``setting.shadows.count``).

    Args:
        index: Brought up to date.
        defaults: Without it all settings count as set.
    """
    import pandas

    frame = pandas.DataFrame(list(rows(index, defaults)))
    extra = sorted(set(frame.columns) - set(COLUMNS))
    frame = frame.reindex(columns=[*COLUMNS, *extra])
    for column in _WHOLE:
        frame[column] = frame[column].astype("Int64")
    for column in extra:
        if frame[column].dropna().map(type).nunique() > 1:  # one name, of several methods
            frame[column] = frame[column].map(lambda value: None if pandas.isna(value) else str(value))
    order = ["case", "trial", "name"]
    return frame.sort_values(order, kind="stable", na_position="first").reset_index(drop=True)


def rows(index: Index, defaults: Defaults | None = None) -> Iterator[dict[str, Any]]:
    """The rows of `to_frame`, in no particular order."""
    subjects = list(index.target_records())
    by_key: dict[str, tuple[StudyTargetRecord, dict[str, Any]]] = {}
    for subject in subjects:
        about = _about_target(subject)
        if subject.means is not None:
            by_key.setdefault(subject.means.key, (subject, about))
        if subject.status == "failed":
            yield {**about, "status": "failed", "reason": f"the target could not be opened: {subject.reason}"}
        for measurement in subject.measurements:
            own = measurement.name.removeprefix("target.")
            yield {**about, "status": "ok", "attack": "target", "kind": "target", **_value(measurement, own)}
    for trial in index.trials():
        spec = trial.spec
        known = by_key.get(target_key(spec.target, spec.dataset, spec.split, spec.precision))
        about = known[1] if known else _about_spec(trial)
        row = {**about, **_about_trial(trial, defaults)}
        if not trial.measurements:
            yield row
        for measurement in trial.measurements:
            yield {**row, **_value(measurement, own_name(trial, measurement.name))}


def own_name(trial: TrialResult, name: str) -> str:
    """A measurement's name without that of its trial: ``tpr@fpr=0.001``."""
    method = trial.spec.method if trial.spec.kind == "attack" else f"backdoor.{trial.spec.method}"
    if not name.startswith(method):
        return name
    rest = name[len(method) :]
    if rest.startswith("@"):  # the threat model, in the name of a trial of a method that serves several
        rest = rest[rest.index(".") :] if "." in rest else ""
    return rest.removeprefix(".")


def write_table(frame: pandas.DataFrame, path: Path) -> None:
    """Write a table as ``.parquet``, ``.csv`` or ``.jsonl``, whole or not at all.

    Raises:
        ConfigurationError: If the file has another ending.
    """
    buffer = io.BytesIO()
    if path.suffix == ".parquet":
        frame.to_parquet(buffer, index=False)
    elif path.suffix == ".csv":
        buffer.write(frame.to_csv(index=False).encode("utf-8"))
    elif path.suffix == ".jsonl":
        buffer.write(frame.to_json(orient="records", lines=True, force_ascii=False).encode("utf-8"))
    else:
        raise ConfigurationError(
            f"Tables are written as .parquet, .csv or .jsonl, not as {path.suffix or 'a file without ending'}."
        )
    with atomic_write(path) as stream:
        stream.write(buffer.getvalue())


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names; lists as JSON."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | Mapping):
            found[f"{prefix}{name}"] = json.dumps(value)
        else:
            found[f"{prefix}{name}"] = value
    return found


def _about_target(subject: StudyTargetRecord) -> dict[str, Any]:
    training = subject.training or {}
    recipe = training.get("recipe") or {}
    declared = subject.declared
    wanted = declared.get("train") or {}
    measured = {m.name: m.value for m in subject.measurements}
    means = subject.means
    return {
        "case": subject.key,
        "model": subject.label,
        "reference": means.target.reference if means else declared.get("model"),
        "checksum": means.target.checksum if means else None,
        "dataset": means.dataset.reference if means else declared.get("dataset"),
        "split": means.split.name if means else None,
        "membership": subject.membership,
        "precision": means.precision if means else None,
        "catalog": subject.catalog,
        "num_classes": subject.facts.get("num_classes"),
        "members": subject.facts.get("members"),
        "non_members": subject.facts.get("non_members"),
        "architecture": training.get("architecture") or wanted.get("architecture") or subject.codes.get("architecture"),
        "defense": _defense(training.get("defense") or wanted.get("defense"), declared.get("defense")),
        "epochs": recipe.get("epochs") or wanted.get("epochs"),
        "seed": recipe.get("seed", wanted.get("seed")),
        "target_train_accuracy": measured.get("target.train_accuracy"),
        "target_test_accuracy": measured.get("target.test_accuracy"),
        "target_overfitting": measured.get("target.overfitting"),
        "as_said": all(check.agrees for check in subject.checks) if subject.checks else None,
        **{f"catalog.{name}": _plain(value) for name, value in subject.codes.items()},
    }


def _about_spec(trial: TrialResult) -> dict[str, Any]:
    """What a trial says of its target, where there is no subject file."""
    spec = trial.spec
    return {
        "case": target_key(spec.target, spec.dataset, spec.split, spec.precision),
        "model": spec.target.reference,
        "reference": spec.target.reference,
        "checksum": spec.target.checksum,
        "dataset": spec.dataset.reference,
        "split": spec.split.name,
        "precision": spec.precision,
    }


def _about_trial(trial: TrialResult, defaults: Defaults | None) -> dict[str, Any]:
    spec = trial.spec
    configuration = flat(spec.configuration)
    usual = flat(defaults(spec.kind, spec.method)) if defaults else {}
    changed = {name: value for name, value in configuration.items() if name not in usual or usual[name] != value}
    family, _, method = spec.method.rpartition(".")
    return {
        "trial": trial.id,
        "status": trial.status,
        "reason": trial.reason,
        "kind": spec.kind,
        "attack": family if spec.kind == "attack" else "backdoor",
        "method": method,
        "access": spec.threat_model.access.value,
        "auxiliary": spec.threat_model.auxiliary.value,
        "auxiliary_dataset": spec.auxiliary.reference if spec.auxiliary else None,
        "settings": json.dumps(changed, sort_keys=True),
        "trial_seed": spec.seed,
        "queries_total": trial.queries.total,
        "queries_unique": trial.queries.unique,
        "seconds": round(sum(trial.seconds.values()), 4) if trial.seconds else None,
        "version": trial.environment.get("securitynet"),
        "finished": trial.finished,
        **{f"setting.{name}": value for name, value in configuration.items()},
    }


def _value(measurement: Measurement, own: str) -> dict[str, Any]:
    found = _OWN.match(own)
    return {
        "name": measurement.name,
        "measure": found["measure"] if found else own,
        "at": found["at"] if found else None,
        "value": measurement.value,
        "low": measurement.low,
        "high": measurement.high,
        "level": measurement.level,
        "n": measurement.n,
        "direction": measurement.direction.value,
        "interval": measurement.method,
        "note": measurement.note,
    }


def _defense(trained: Any, answered: Any) -> str | None:
    """Names of the defenses of training and of answers."""
    names = [(value.get("name") if isinstance(value, Mapping) else value) for value in (trained, answered) if value]
    return "+".join(str(name) for name in names) or None


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value
