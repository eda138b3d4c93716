"""Tidy tables of results: one row per measured value, with its target, method, settings and cost.

Trials that failed or were skipped, and targets that could not be opened, have one row each, without a value:
otherwise an incomplete table would look complete.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securitynet.errors import ConfigurationError
from securitynet.escaping import escape_formula
from securitynet.files import write_atomically
from securitynet.memory import pause_garbage_collection
from securitynet.records import Measurement, TrialResult
from securitynet.results.columns import Rows
from securitynet.results.index import Index
from securitynet.results.study_targets import StudyTargetRecord, make_target_key

if TYPE_CHECKING:
    import pandas

Defaults = Callable[[str, str], Mapping[str, Any] | None]
"""(kind, full name of a method) -> its configuration when nothing is set, None if it is not known."""

TARGET = (
    "case", "model", "reference", "checksum", "dataset", "split", "membership", "precision", "catalog",
    "num_classes", "members", "non_members", "architecture", "defense", "epochs", "seed",
    "target_train_accuracy", "target_test_accuracy", "target_overfitting", "as_said",
)  # fmt: skip
"""Columns about the target. ``case`` is the key of its record, ``seed`` that of its training."""

TRIAL = (
    "trial", "status", "reason", "kind", "attack", "method", "access", "auxiliary", "auxiliary_dataset", "settings",
    "trial_seed", "queries_total", "queries_unique", "seconds", "version", "finished",
)  # fmt: skip
"""Columns about the trial. ``attack`` is its family; ``settings`` are those that differ from the defaults, as JSON."""

VALUE = ("name", "measure", "at", "value", "low", "high", "level", "n", "direction", "interval", "note")
"""Columns about the value. ``measure`` is its name without the trial's, ``at`` what follows its ``@``."""

COLUMNS = (*TARGET, *TRIAL, *VALUE)

CHANGING = ("seconds", "version", "finished")
"""Columns that may differ in another run of the same study."""

_WHOLE = (
    "num_classes", "members", "non_members", "epochs", "seed", "trial_seed", "queries_total", "queries_unique", "n",
)  # fmt: skip

ROWS_AT_ONCE = 100_000
"""Rows that are written at once."""

_NO_VALUE: tuple[dict[str, Any], ...] = ({},)
_OWN = re.compile(r"(?P<measure>[^@]+?)(?:@(?P<at>[A-Za-z_-]+=.+))?$")


def to_frame(index: Index, defaults: Defaults | None = None) -> pandas.DataFrame:
    """All results as a tidy table, in an order that depends only on the results.

    Columns are `COLUMNS`, then the codes of the catalog (``catalog.family``), then one for each setting of any method
    (``setting.shadows.count``).

    Args:
        index: An index that is up to date.
        defaults: The settings of a method when none are set; without it, all settings count as changed.
    """
    import pandas

    with pause_garbage_collection():
        rows = _gather(index, defaults)
        values = _unify(rows.find_values())
        frames = [_complete(frame) for frame in rows.make_frames(values, max(len(rows), 1))]
    return frames[0] if frames else _complete(pandas.DataFrame())


def write_table(index: Index, path: Path, defaults: Defaults | None = None) -> tuple[int, int]:
    """Write all results as ``.parquet``, ``.csv`` or ``.jsonl``, whole or not at all: the table of `to_frame`.

    It is written in parts, since the whole of it takes a gigabyte where there are a million rows.

    Args:
        index: An index that is up to date.
        path: The file.
        defaults: See `to_frame`.

    Returns:
        Number of rows, and of those of trials and targets that failed. Nothing is written if there are none.

    Raises:
        ConfigurationError: If the file has another ending.
    """
    check_table_name(path)
    with pause_garbage_collection():
        rows = _gather(index, defaults)
    if not len(rows):
        return 0, 0
    values = _unify(rows.find_values())
    failed = 0
    with write_atomically(path) as stream, contextlib.ExitStack() as opened:
        for number, part in enumerate(rows.make_frames(values, ROWS_AT_ONCE)):
            frame = _complete(part)
            failed += int((frame["status"] == "failed").sum())
            if path.suffix == ".parquet":
                import pyarrow
                import pyarrow.parquet

                if number == 0:
                    # The first rows may have no value in a column, which would then have no type.
                    schema = pyarrow.Schema.from_pandas(frame, preserve_index=False)
                    for name, given in values.items():
                        kind = pyarrow.array(given, from_pandas=True).type
                        schema = schema.set(schema.get_field_index(name), pyarrow.field(name, kind))
                    writer = opened.enter_context(pyarrow.parquet.ParquetWriter(stream, schema))
                writer.write_table(pyarrow.Table.from_pandas(frame, schema=schema, preserve_index=False))
            elif path.suffix == ".csv":
                stream.write(encode_csv(frame, header=number == 0))
            else:
                stream.write(frame.to_json(orient="records", lines=True, force_ascii=False).encode("utf-8"))
    return len(rows), failed


def _gather(index: Index, defaults: Defaults | None) -> Rows:
    return Rows(read_blocks(index, defaults), order=("case", "trial", "name"))


def _unify(values: dict[str, pandas.Series]) -> dict[str, pandas.Series]:
    """Columns of which each holds values of one type."""
    import pandas

    for column, given in values.items():
        if column in _WHOLE:
            values[column] = given.astype("Int64")
        elif column not in COLUMNS and given.dropna().map(type).nunique() > 1:  # one name, of several methods
            values[column] = given.map(lambda value: None if pandas.isna(value) else str(value))
    return values


def _complete(frame: pandas.DataFrame) -> pandas.DataFrame:
    """All columns, in order."""
    frame = frame.reindex(columns=[*COLUMNS, *sorted(set(frame.columns) - set(COLUMNS))])
    for column in _WHOLE:
        frame[column] = frame[column].astype("Int64")
    return frame


def read_blocks(
    index: Index, defaults: Defaults | None = None
) -> Iterator[tuple[dict[str, Any], tuple[dict[str, Any], ...]]]:
    """The rows of `to_frame`, in no particular order: (what those of a target or trial share, what each has)."""
    by_key: dict[str, tuple[StudyTargetRecord, dict[str, Any]]] = {}
    usual = functools.cache(lambda kind, method: flatten_dotted((defaults and defaults(kind, method)) or {}))
    for record in list(index.target_records()):
        about = _about_target(record)
        if record.means is not None:
            by_key.setdefault(record.means.key, (record, about))
        if record.status == "failed":
            reason = f"the target could not be opened: {record.reason}"
            yield {**about, "status": "failed", "reason": reason}, _NO_VALUE
        if record.measurements:
            shared = {**about, "status": "ok", "attack": "target", "kind": "target"}
            yield shared, tuple(_value(m, *_split_name("target", m.name)) for m in record.measurements)
    split = functools.cache(_split_name)
    for id_, trial in index.identified_trials():
        spec = trial.spec
        known = by_key.get(make_target_key(spec.target, spec.dataset, spec.split, spec.precision))
        about = known[1] if known else _about_spec(trial)
        shared = {**about, **_about_trial(id_, trial, usual(spec.kind, spec.method))}
        yield shared, tuple(_value(m, *split(_prefix(trial), m.name)) for m in trial.measurements) or _NO_VALUE


def strip_trial_name(trial: TrialResult, name: str) -> str:
    """The name of a measurement without that of its trial: ``tpr@fpr=0.001``."""
    return _strip_prefix(_prefix(trial), name)


def _prefix(trial: TrialResult) -> str:
    return trial.spec.method if trial.spec.kind == "attack" else f"backdoor.{trial.spec.method}"


def _strip_prefix(prefix: str, name: str) -> str:
    if not name.startswith(prefix):
        return name
    rest = name[len(prefix) :]
    if rest.startswith("@"):  # the threat model, in the name of a trial of a method that serves several
        rest = rest[rest.index(".") :] if "." in rest else ""
    return rest.removeprefix(".")


def _split_name(prefix: str, name: str) -> tuple[str, str | None]:
    """(measure, what follows its ``@``) of a measurement's name."""
    own = _strip_prefix(prefix, name)
    match = _OWN.match(own)
    return (match["measure"], match["at"]) if match else (own, None)


def check_table_name(path: Path) -> None:
    """Raise `ConfigurationError` if tables are not written to files with this ending."""
    if path.suffix not in (".parquet", ".csv", ".jsonl"):
        raise ConfigurationError(
            f"Tables are written as .parquet, .csv or .jsonl, not as {path.suffix or 'a file without ending'}."
        )


def encode_csv(frame: pandas.DataFrame, *, header: bool = True) -> bytes:
    """A table as CSV in UTF-8, none of whose texts a spreadsheet takes for a formula."""
    safe = frame.copy(deep=False)
    for place, kind in enumerate(frame.dtypes):
        if kind.kind == "O":
            escaped: dict[str, str] = {}  # a million cells hold few texts
            safe.isetitem(place, [_escape_cell(value, escaped) for value in frame.iloc[:, place]])
    return str(safe.to_csv(index=False, header=header)).encode("utf-8")


def _escape_cell(value: Any, escaped: dict[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    return escaped.get(value) or escaped.setdefault(value, escape_formula(value))


def flatten_dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names; lists as JSON."""
    columns: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            columns |= flatten_dotted(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | Mapping):
            columns[f"{prefix}{name}"] = json.dumps(value)
        else:
            columns[f"{prefix}{name}"] = value
    return columns


def _about_target(record: StudyTargetRecord) -> dict[str, Any]:
    training = record.training or {}
    recipe = training.get("recipe") or {}
    declared = record.declared
    wanted = declared.get("train") or {}
    measured = {m.name: m.value for m in record.measurements}
    capabilities = record.means
    return {
        "case": record.key,
        "model": record.label,
        "reference": capabilities.target.reference if capabilities else declared.get("model"),
        "checksum": capabilities.target.checksum if capabilities else None,
        "dataset": capabilities.dataset.reference if capabilities else declared.get("dataset"),
        "split": capabilities.split.name if capabilities else None,
        "membership": record.membership,
        "precision": capabilities.precision if capabilities else None,
        "catalog": record.catalog,
        "num_classes": record.facts.get("num_classes"),
        "members": record.facts.get("members"),
        "non_members": record.facts.get("non_members"),
        "architecture": training.get("architecture") or wanted.get("architecture") or record.codes.get("architecture"),
        "defense": _defense(training.get("defense") or wanted.get("defense"), declared.get("defense")),
        "epochs": recipe.get("epochs") or wanted.get("epochs"),
        "seed": recipe.get("seed", wanted.get("seed")),
        "target_train_accuracy": measured.get("target.train_accuracy"),
        "target_test_accuracy": measured.get("target.test_accuracy"),
        "target_overfitting": measured.get("target.overfitting"),
        "as_said": all(check.agrees for check in record.checks) if record.checks else None,
        **{f"catalog.{name}": _plain(value) for name, value in record.codes.items()},
    }


def _about_spec(trial: TrialResult) -> dict[str, Any]:
    """The columns about a target that a trial provides, if there is no record of the target."""
    spec = trial.spec
    return {
        "case": make_target_key(spec.target, spec.dataset, spec.split, spec.precision),
        "model": spec.target.reference,
        "reference": spec.target.reference,
        "checksum": spec.target.checksum,
        "dataset": spec.dataset.reference,
        "split": spec.split.name,
        "precision": spec.precision,
    }


def _about_trial(id_: str, trial: TrialResult, usual: Mapping[str, Any]) -> dict[str, Any]:
    spec = trial.spec
    configuration = flatten_dotted(spec.configuration)
    changed = {name: value for name, value in configuration.items() if name not in usual or usual[name] != value}
    family, _, method = spec.method.rpartition(".")
    return {
        "trial": id_,
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


def _value(measurement: Measurement, measure: str, at: str | None) -> dict[str, Any]:
    return {
        "name": measurement.name,
        "measure": measure,
        "at": at,
        "value": measurement.value,
        "low": measurement.low,
        "high": measurement.high,
        "level": measurement.level,
        "n": measurement.n,
        "direction": measurement.direction.value,
        "interval": measurement.method,
        "note": measurement.note,
    }


def _defense(training: Any, output: Any) -> str | None:
    """Names of the training defense and the output defense."""
    names = [(value.get("name") if isinstance(value, Mapping) else value) for value in (training, output) if value]
    return "+".join(str(name) for name in names) or None


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value
