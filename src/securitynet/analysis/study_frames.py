"""The tidy frame of a study, from its target and trial files."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import picture_rows
from securitynet.analysis.frames import ANNOTATIONS, parse_name, tidy
from securitynet.assessments.known_methods import find_default_settings
from securitynet.catalog.known import complete_entry, spell_dataset
from securitynet.memory import pause_garbage_collection, release_freed_memory
from securitynet.metrics import roc
from securitynet.records import Measurement, TrialResult
from securitynet.results.columns import make_frame
from securitynet.results.score_arrays import have_scores
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetRecord, StudyTargetStore, make_target_key
from securitynet.studies.execution.inspect import read_trials
from securitynet.studies.execution.run import locate_results

logger = logging.getLogger(__name__)

_DEPTHS = {"simple-cnn": 4, "alexnet": 8, "xception": 71}
"""Layers of architectures whose names do not state them."""

_SURROGATE = "_surrogate"
"""Column with the architecture of a surrogate, until all are known."""

_parse_name = functools.lru_cache(4096)(parse_name)
"""`parse_name`, of which the caller changes nothing: thousands of trials have few names."""

CURVE_MEASURE = "roc"
"""True-positive rates all along an ROC curve, as `from_study` adds them."""

CURVE_RATES = np.logspace(-5, 0, 26)
"""False-positive rates at which curves of several targets are taken, so that they can be averaged: five a decade."""


def from_study(
    folder: Path | str,
    *,
    curves: bool = False,
    pictures: bool = False,
    doubtful: bool = False,
    observe: Callable[[Iterable[TrialResult]], Iterable[TrialResult]] | None = None,
) -> pandas.DataFrame:
    """All measured values under a study's root: one case per target, with its known annotations.

    Annotations come from the catalog where the study file links a model to it, and otherwise from the
    names of the architecture and the dataset. Trials that failed or were skipped have no rows.

    Args:
        folder: The study's root.
        curves: Add the ROC curves of membership attacks at `CURVE_RATES`, from the scores stored with the trials;
            reading thousands of them takes a while.
        pictures: Add the pictures of triggers and reconstructions (`securitynet.analysis.picture_rows`).
        doubtful: Include targets that failed a check: accuracy at chance or far from the stated one, another class
            order, or random outputs. Their measurements say nothing about a model.
        observe: Passes the trials on, one by one, for a caller that needs more of them than their values.
    """
    trials: Iterable[TrialResult] = read_trials(locate_results(folder), logger.warning)
    blocks = _blocks(TrialStore(folder), observe(trials) if observe else trials, curves, doubtful, pictures=pictures)
    with pause_garbage_collection():
        frame = make_frame(blocks)
    release_freed_memory()
    if _SURROGATE in frame:
        tried = frame[frame[_SURROGATE].notna()]
        larger = _larger(tried.groupby("method")[_SURROGATE].unique())
        frame.loc[tried.index, "surrogate"] = np.where(tried[_SURROGATE].isin(larger), "larger", "usual")
    return tidy(frame)


def _blocks(
    store: TrialStore, trials: Iterable[TrialResult], curves: bool, doubtful: bool, *, pictures: bool = False
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The rows of a study: (columns that those of one target or trial share, those of each row)."""
    known: dict[str, dict[str, Any]] = {}
    for record in StudyTargetStore(store.files):
        if record.means is None or (record.doubtful and not doubtful):
            continue
        capabilities = record.means
        case = describe_target(record)
        known[capabilities.key] = case
        yield case, [tabulate_measurement(measurement) for measurement in record.measurements]
    for result in trials:
        spec = result.spec
        of = known.get(make_target_key(spec.target, spec.dataset, spec.split, spec.precision))
        if result.status != "ok" or of is None:
            continue
        how, rows = _trial_rows(result)
        yield {**of, **how}, rows
        more: list[dict[str, Any]] = []
        if curves and rows and spec.method.startswith("membership."):
            more += tabulate_curve(store.load_arrays(result) or {}, {**of, **rows[-1], **how})
        if pictures and rows and spec.method in picture_rows.SHOWN:
            more += picture_rows.list_pictures(result, store, {**of, **rows[-1], **how})
        yield {}, more


def describe_target(record: StudyTargetRecord) -> dict[str, Any]:
    """What is known about an assessed target, by the columns of a tidy frame."""
    assert record.means is not None
    training = record.training or {}
    reference = record.means.target.reference
    architecture = training.get("architecture") or record.codes.get("architecture") or reference.partition(":")[2]
    codes = {"architecture": architecture, "dataset": spell_dataset(record.means.dataset.reference.partition("@")[0])}
    given = {name: value for name, value in record.codes.items() if name in ANNOTATIONS}
    entry, _ = complete_entry({"key": record.key, "source": "study", "name": record.label, **codes, **given})
    annotations = {name: getattr(entry, name) for name in ANNOTATIONS}
    annotations["family"] = annotations["family"] or architecture
    recipe = training.get("recipe") or {}
    return {
        "case": record.key,
        "model": record.label,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in annotations.items()},
        "defense": _defense(record),
        **_condition(record),
        "epochs": recipe.get("epochs"),
        "seed": recipe.get("seed"),
        "backdoor": (training.get("backdoor") or training.get("implant") or {}).get("name"),
    }


def tabulate_measurement(measurement: Measurement) -> dict[str, Any]:
    """A measurement's name and numbers, by columns."""
    numbers = {name: getattr(measurement, name) for name in ("value", "low", "high", "level", "n")}
    return {**_parse_name(measurement.name), **numbers}


def _trial_rows(result: TrialResult) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(columns that a trial's rows share, the others of each row)."""
    spec = result.spec
    architecture = spec.configuration.get("architecture")
    how = {
        "method": spec.method.rpartition(".")[2],
        "access": spec.threat_model.access.value,
        "auxiliary": spec.threat_model.auxiliary.value,
        "seconds": sum(result.seconds.values()),
    }
    if spec.method.startswith("stealing."):
        how["surrogate"] = "usual"
        if isinstance(architecture, str):
            how[_SURROGATE] = architecture
    changed = json.dumps(list_changed_settings(spec.kind, spec.method, spec.configuration), sort_keys=True)
    rows = []
    for measurement in result.measurements:
        columns = tabulate_measurement(measurement)
        columns["settings"] = _merge_settings(changed, columns["settings"])
        rows.append({name: value for name, value in columns.items() if name not in how})
    return how, rows


@functools.lru_cache(4096)
def _merge_settings(first: str, second: str) -> str:
    """Settings as JSON, of which the second ones count where both name one."""
    return json.dumps({**json.loads(first), **json.loads(second)}, sort_keys=True)


def tabulate_curve(arrays: Mapping[str, NDArray[Any]], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An ROC curve at those of `CURVE_RATES` that its non-members resolve, on the records of the measured rates: all.

    Args:
        arrays: Of a membership attack's output: ``scores``, ``is_member`` and ``indices``, N each; and ``left_out``,
            the records that are not judged, where there are any.
        row: Of a tidy frame, for the trial's columns.
    """
    if not have_scores(arrays):
        return []
    scores, is_member = arrays["scores"], arrays["is_member"]
    if "left_out" in arrays:
        judged = ~np.isin(arrays["indices"], arrays["left_out"])
        scores, is_member = scores[judged], is_member[judged]
    members, non_members = scores[is_member], scores[~is_member]
    if not len(members) or not len(non_members):
        return []
    n = len(non_members)
    resolved = [rate for rate in CURVE_RATES.tolist() if rate == 1 or roc.resolves(n, rate)]
    whole = roc.compute_curve(members, non_members)
    # The threshold that `roc.measure_tpr_at_fpr` takes.
    bounds = np.array([1.0 if rate == 1 else roc.count_allowed(rate, n) / n for rate in resolved])
    values = whole.tpr[np.searchsorted(whole.fpr, bounds + 1e-12, side="right") - 1]
    how = {**row, "measure": CURVE_MEASURE, "low": None, "high": None, "n": len(members) + len(non_members)}
    return [
        {**how, "at": f"fpr={rate:.4g}", "value": float(value)} for rate, value in zip(resolved, values, strict=True)
    ]


def _larger(tried: Iterable[Iterable[str]]) -> set[str]:
    """Architectures of surrogates that are deeper than the shallowest that the same method was tried with.

    Args:
        tried: The architectures, for each method.
    """
    methods = [list(names) for names in tried]
    return {name for names in methods for name in names if _depth(name) > min(map(_depth, names))}


def _depth(architecture: str) -> int:
    """Number of layers, read from the name of an architecture."""
    if architecture in _DEPTHS:
        return _DEPTHS[architecture]
    numbers = re.findall(r"\d+", architecture.removeprefix("cifar-"))
    return int(numbers[0]) if numbers else 0


def list_changed_settings(kind: str, method: str, configuration: dict[str, Any]) -> dict[str, Any]:
    """The settings of a method that are not its defaults; all of them if this version does not know it.

    Args:
        kind: ``attack`` or ``detector``.
        method: Full name of the method.
        configuration: Its settings.
    """
    defaults = find_default_settings(kind, method)
    if defaults is None:
        return configuration
    return {name: value for name, value in configuration.items() if defaults.get(name) != value}


def _defense(record: StudyTargetRecord) -> str | None:
    """The training defense and the output defense of an assessed target, joined; None if it has neither."""
    trained = (record.training or {}).get("defense")
    at_output = record.declared.get("defense")
    names = [item if isinstance(item, str) else str(item.get("name", item)) for item in (trained, at_output) if item]
    return " + ".join(dict.fromkeys(names)) or None


def _condition(record: StudyTargetRecord) -> dict[str, Any]:
    """Describe a target's defense: the settings that differ from its defaults, the epsilon spent, the teacher."""
    trained = (record.training or {}).get("defense") or {}
    given = dict(trained.get("settings") or {}) if isinstance(trained, dict) else {}
    name = trained.get("name") if isinstance(trained, dict) else trained
    if record.declared.get("defense"):
        name, given = _at_output(record)
    changed = _changed(str(name), given) if name else {}
    words = [_words(field, value) for field, value in changed.items() if field != "teacher"]
    privacy = (trained.get("privacy") if isinstance(trained, dict) else None) or {}
    teacher = (trained.get("teacher") if isinstance(trained, dict) else None) or {}
    return {
        "setting": ", ".join(words) or None,
        "epsilon": privacy.get("epsilon"),
        "teacher": teacher.get("architecture"),
    }


def _words(field: str, value: Any) -> str:
    if field == "preset":  # celeba-1, fmnist-1: the same column of ML-Doctor's Table 5
        return f"setting {str(value).rpartition('-')[2]}"
    return f"{field.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"


def _at_output(record: StudyTargetRecord) -> tuple[str, dict[str, Any]]:
    """Name and settings of the output defense of an assessed target."""
    from securitynet.defenses.base import parse_defense_settings

    name = str(record.declared["defense"])
    texts = [text for text in record.declared.get("configure") or () if text.strip().startswith(f"{name}.")]
    return name, parse_defense_settings(name, texts)


def _changed(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a defense that are not its defaults; all of them if this version does not know it."""
    defaults = find_default_settings("defense", name)
    if defaults is None:
        return settings
    return {field: value for field, value in settings.items() if defaults.get(field) != value}
