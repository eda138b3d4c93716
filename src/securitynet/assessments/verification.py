"""Runs trials of a result again, from the model and the data at hand, and says which measurements were reproduced."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from securitynet.assessments import assess as assessment
from securitynet.assessments import environment
from securitynet.assessments.assessed_target import AssessedTarget, prepare
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.run_trial import ReportProgress, name_phase
from securitynet.catalog.location import using
from securitynet.errors import ConfigurationError, list_problems
from securitynet.records import Measurement
from securitynet.results.document import ResultDocument
from securitynet.results.store import TrialStore

REFERENCES = ("model", "dataset", "architecture", "auxiliary_dataset")
RUNS_CODE = ("python:", "http:", "https:", "torchscript:")
"""References that run code or send images to somebody; a result, which may come from anybody, does not suffice."""

PROMISED = ("securitynet", "torch", "numpy", "device", "threads")
"""Parts of the environment with which the same numbers are promised, to the last digit."""

MOST_WIDER = 3.0
"""Ratio of the widths of two intervals from which they are not those of the same measurement."""

Outcome = Literal["identical", "within the intervals", "different", "not measured"]


@dataclass(frozen=True)
class Reproduction:
    """One measurement of a result, and what it is now.

    Attributes:
        name: Of the measurement.
        stated: As in the result.
        now: As measured again; None if it was not.
        outcome: Whether it was reproduced: exactly, or with each value in the other's interval, from as many samples
            and with intervals of similar widths.
    """

    name: str
    stated: Measurement
    now: Measurement | None
    outcome: Outcome

    @property
    def holds(self) -> bool:
        """Whether the measurement was reproduced."""
        return self.outcome in ("identical", "within the intervals")


def draw_trials(document: ResultDocument, share: float, seed: int) -> list[str]:
    """Names of the finished trials to run again: all, or a drawn share, at least one.

    Args:
        document: The result.
        share: Share of the trials, in (0, 1].
        seed: Of the draw.
    """
    names = [trial.name for trial in document.trials if trial.status == "ok"]
    if share >= 1 or not names:
        return names
    count = max(1, round(share * len(names)))
    return sorted(random.Random(seed).sample(names, count), key=names.index)


def make_configuration(
    document: ResultDocument, trials: Sequence[str], folder: Path, changes: dict[str, Any]
) -> AssessConfig:
    """The configuration that runs trials of a result again.

    Args:
        document: The result.
        trials: Names of the trials.
        folder: For everything that is written; nothing computed before is used.
        changes: Settings that the user gave, which replace those of the result.

    Raises:
        ConfigurationError: If the result names code or a server and the user did not, or a setting is unknown.
    """
    settings = {**document.settings, **{name: value for name, value in changes.items() if value is not None}}
    named = [(name, str(settings.get(name) or "")) for name in REFERENCES]
    named += [("reference_models", str(reference)) for reference in settings.get("reference_models", ())]
    for name, reference in named:
        option = f"--{name.replace('_', '-')}"
        if changes.get(name) is None and reference.startswith(RUNS_CODE):
            raise ConfigurationError(
                f"The result names {reference} as {name.replace('_', ' ')}, which would run code or query a server.",
                hint=f"A result may come from anybody. If you trust it, give it yourself with {option}.",
            )
    settings["db"] = changes.get("db")
    if str(settings["model"]).startswith("catalog:") and document.settings.get("db") and settings["db"] is None:
        raise ConfigurationError(
            f"The model, {settings['model']}, is an entry of a catalog that the result names.",
            hint="Give the catalog's database with --db.",
        )
    methods = {name.partition("@")[0] for name in trials}
    attacks = sorted(name for name in methods if not name.startswith("backdoor."))
    detectors = sorted(name.removeprefix("backdoor.") for name in methods if name.startswith("backdoor."))
    short = {name.partition(".")[2] for name in methods} | methods
    configured = tuple(f"{name}." for name in (*short, settings.get("defense")) if name)
    settings |= {
        "attacks": attacks or ["none"],
        "detectors": detectors or ["none"],
        "configure": [one for one in settings.get("configure", ()) if str(one).startswith(configured)],
        "try_defenses": False,
        "policy": None,
        "against": None,
        "rerun": True,
        "trust": bool(changes.get("trust")),
        "plugin": changes.get("plugin") or (),
        "out": folder,
        "cache": folder / "cache",
    }
    if not {"membership.rmia", "membership.rmia-offline", "membership.reference-calibration"} & methods:
        settings["reference_models"] = []
    try:
        return AssessConfig.model_validate({name: value for name, value in settings.items() if value is not None})
    except ValidationError as error:
        unknown = ", ".join(sorted({str(problem["loc"][0]) for problem in list_problems(error) if problem["loc"]}))
        raise ConfigurationError(
            f"This version does not understand settings of the result: {unknown}.",
            hint="Verify it with the version that its environment states.",
        ) from error


def reproduce(
    document: ResultDocument,
    trials: Sequence[str],
    changes: dict[str, Any],
    report_progress: ReportProgress | None = None,
) -> tuple[list[Reproduction], bool]:
    """Run trials of a result again, and compare their measurements, and the target's own, with those stated.

    Nothing that was computed before is used: outputs of the target are collected, and models for attacks trained, anew.

    Args:
        document: The result.
        trials: Names of the trials.
        changes: Settings that replace those of the result, such as the path of the weights.
        report_progress: Called with (what, done, total).

    Returns:
        One for each measurement, and whether the same numbers are promised, to the last digit: the versions, the device
        and the number of threads are those of the result.

    Raises:
        OtherIdentity: If the model, the images or the split at hand are not those of the result.
    """
    with tempfile.TemporaryDirectory(prefix="securitynet-verify-") as name:
        config = make_configuration(document, trials, Path(name), changes)
        target = _prepare(config, report_progress)
        check_identity(document, target)
        finished = assessment.run_assessment(config, target, TrialStore(Path(name)), report_progress)
        here = environment.describe_environment(target.target)
    now = {measurement.name: measurement for measurement in finished.all_measurements()}
    wanted = [m for m in document.measurements if is_measured(m.name, document, trials)]
    checks = [Reproduction(m.name, m, now.get(m.name), compare_measurements(m, now.get(m.name))) for m in wanted]
    return checks, all(document.environment.get(part) == here.get(part) for part in PROMISED)


def check_given(document: ResultDocument, changes: dict[str, Any]) -> None:
    """Load the model and the data at hand, and refuse them if the result is not about them; nothing runs again.

    Args:
        document: The result.
        changes: Settings that replace those of the result, such as the path of the weights.

    Raises:
        OtherIdentity: If the model, the images or the split at hand are not those of the result.
    """
    with tempfile.TemporaryDirectory(prefix="securitynet-verify-") as name:
        check_identity(document, _prepare(make_configuration(document, [], Path(name), changes)))


def _prepare(config: AssessConfig, report_progress: ReportProgress | None = None) -> AssessedTarget:
    with using(config.db):
        return prepare(config, name_phase(report_progress, "loading"))


def is_measured(name: str, document: ResultDocument, trials: Sequence[str]) -> bool:
    """Whether a measurement is taken when trials run again: theirs, the accuracies, and the controls of membership.

    Args:
        name: Of the measurement.
        document: The result.
        trials: Names of the trials.
    """
    if name.startswith(("target.", *(f"{trial}." for trial in trials))):
        return True
    control = name.startswith("membership.") and not name.startswith(tuple(f"{t.name}." for t in document.trials))
    return control and any(trial.startswith("membership.") for trial in trials)


class OtherIdentity(ConfigurationError):
    """A model, images or a split that are not those of a result."""


def check_identity(document: ResultDocument, target: AssessedTarget) -> None:
    """Refuse a model, images or a split that the result is not about.

    Args:
        document: The result.
        target: The target with its data, as loaded now.

    Raises:
        OtherIdentity: If one of them differs.
    """
    pairs = {
        "model": (document.target.checksum, target.target.backend.checksum),
        "dataset": (document.dataset.fingerprint, target.dataset.fingerprint),
        "split": (document.dataset.split_fingerprint, target.splits.fingerprint),
    }
    for what, (stated, present) in pairs.items():
        if stated != present:
            raise OtherIdentity(
                f"The {what} at hand is not that of the result: {present[:12]} instead of {stated[:12]}.",
                hint="Give the right one with --weights, --dataset or --members.",
            )


def compare_measurements(stated: Measurement, now: Measurement | None) -> Outcome:
    """Whether a measurement was reproduced.

    Args:
        stated: As in the result.
        now: As measured again.
    """
    if now is None:
        return "not measured"
    if (stated.n, stated.level, stated.direction) != (now.n, now.level, now.direction):
        return "different"
    if stated.value is None or now.value is None:
        return "identical" if stated.value is now.value else "different"
    if (stated.value, stated.low, stated.high) == (now.value, now.low, now.high):
        return "identical"
    assert stated.low is not None and stated.high is not None and now.low is not None and now.high is not None
    inside = stated.low <= now.value <= stated.high and now.low <= stated.value <= now.high
    widths = sorted((stated.high - stated.low, now.high - now.low))
    alike = widths[1] <= MOST_WIDER * widths[0]
    return "within the intervals" if inside and alike else "different"
