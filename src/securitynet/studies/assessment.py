"""An assessment: all applicable attacks on one target, each a trial whose file is kept as soon as it is finished."""

from __future__ import annotations

import datetime
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from securitynet.attacks import ATTACKS
from securitynet.attacks.base import Attack, AttackData, Context, Output
from securitynet.detectors import DETECTORS
from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.files import cache_folder
from securitynet.metrics import rates
from securitynet.models.signals import Signals, collect
from securitynet.models.target import Target
from securitynet.records import (
    Auxiliary,
    DatasetIdentity,
    Direction,
    Measurement,
    ThreatModel,
    TrialResult,
    TrialSpec,
)
from securitynet.results.document import NotAssessed
from securitynet.results.store import TrialStore
from securitynet.studies import environment
from securitynet.studies.config import AssessConfig
from securitynet.studies.settings import make_attack, parse_settings
from securitynet.studies.subject import Subject

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

FAMILIES = {
    "membership": "Membership inference",
    "stealing": "Model stealing",
    "inversion": "Model inversion",
    "attribute": "Attribute inference",
    "evasion": "Evasion",
}
"""The families of attacks that the vocabulary knows, whether this version has them or not."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial with its raw output, ready for measures and pictures."""

    name: str
    result: TrialResult
    output: Output | None
    reused: bool = False


@dataclass(eq=False)
class Assessment:
    """What was found about one target.

    Attributes:
        config: As given.
        subject: The target with its data.
        measurements: Of the target itself (accuracies); those of attacks are in ``trials``.
        trials: In the order they ran.
        not_assessed: What a reader may expect and will not find.
        signals: Outputs for all judged records.
        seconds: Wall-clock seconds by phase.
    """

    config: AssessConfig
    subject: Subject
    measurements: list[Measurement]
    signals: Signals
    trials: list[Trial] = field(default_factory=list)
    not_assessed: list[NotAssessed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def all_measurements(self) -> list[Measurement]:
        """The target's and all trials'."""
        return [*self.measurements, *(m for trial in self.trials for m in trial.result.measurements)]

    def __getitem__(self, name: str) -> Measurement:
        """A measurement by its dotted name; KeyError names what there is."""
        for measurement in self.all_measurements():
            if measurement.name == name:
                return measurement
        raise KeyError(f"{name!r}; there are: {', '.join(m.name for m in self.all_measurements())}")


def run(config: AssessConfig, subject: Subject, store: TrialStore, progress: Progress | None = None) -> Assessment:
    """Query the target once, then run every attack that was asked for and applies.

    A finished trial in ``store`` is used again, unless ``config.rerun`` says otherwise or another version of this
    package made it. An attack that fails is recorded as failed, and the others go on.

    Raises:
        SecurityNetError: If the target can't answer for these images; nothing can be assessed then.
    """
    planned = plan(config, subject)
    cache = config.cache or cache_folder()
    data = AttackData(subject.dataset, subject.splits, subject.trained)
    started = time.perf_counter()
    signals = collect(subject.target, data.dataset, data.judged, cache=cache, progress=_named(progress, "querying"))
    assessment = Assessment(config, subject, accuracies(signals, data, config.level), signals)
    assessment.seconds["signals"] = time.perf_counter() - started
    for number, (name, attack, spec, obstacle) in enumerate(planned):
        if progress:
            progress("attacks", number, len(planned))
        if obstacle is not None:
            result = TrialResult(spec=spec, status="skipped", reason=obstacle, finished=_now())
            assessment.trials.append(Trial(name, store.save(result), None))
            assessment.not_assessed.append(NotAssessed(what=name, why=obstacle))
            continue
        context = Context(seed=config.seed, cache=cache, device=config.device, progress=_named(progress, name))
        trial = _run_trial(name, attack, spec, subject.target, data, context, store, config)
        assessment.trials.append(trial)
        if trial.result.status == "failed":
            assessment.not_assessed.append(NotAssessed(what=name, why=f"it failed: {trial.result.reason}"))
    if progress:
        progress("attacks", len(planned), len(planned))
    assessment.not_assessed += [*left_out(config.attacks), *absent_families()]
    assessment.seconds["total"] = time.perf_counter() - started
    return assessment


def plan(config: AssessConfig, subject: Subject) -> list[tuple[str, Attack, TrialSpec, str | None]]:
    """(name, attack, specification, obstacle) for each trial; an obstacle says why it will be skipped.

    Raises:
        UnknownName: If an attack was asked for that does not exist.
        ConfigurationError: If no attack was asked for.
    """
    planned = []
    chosen, settings = chosen_attacks(config.attacks), parse_settings(config.configure)
    for name in settings:
        if name not in chosen:
            raise ConfigurationError(
                f"--configure sets {name}, which --attacks does not ask for.", hint="Add it there."
            )
    for name in chosen:
        attack = make_attack(name, settings.get(name, {}))
        served, obstacle = [], None
        for threat_model in attack.threat_models:
            obstacle = _obstacle(threat_model, config, subject)
            if obstacle is None:
                served.append(threat_model)
        for threat_model in served or attack.threat_models[:1]:
            spec = TrialSpec(
                target=subject.target.identity,
                dataset=DatasetIdentity(reference=subject.dataset.reference, fingerprint=subject.dataset.fingerprint),
                split=subject.splits.identity,
                kind="attack",
                method=name,
                configuration=attack.model_dump(mode="json"),
                threat_model=threat_model,
                seed=config.seed,
                precision=config.precision,
            )
            label = trial_name(name, attack, threat_model) if served else name
            planned.append((label, attack, spec, None if served else obstacle))
    return planned


def trial_name(name: str, attack: Attack, threat_model: ThreatModel) -> str:
    """Name of a trial, which its measurements carry: ``membership.ml-doctor-black-box@shadow``.

    An attack that serves one threat model gives its trials its own name.
    """
    return name if len(attack.threat_models) == 1 else f"{name}@{threat_model.auxiliary.value}"


def chosen_attacks(names: Sequence[str]) -> list[str]:
    """Full names of the attacks that ``all``, ``standard``, families' names and attacks' names stand for, each once."""
    chosen: list[str] = []
    for name in names:
        if name == "all":
            chosen += ATTACKS.names()
        elif name == "standard":
            chosen += [attack for attack in ATTACKS.names() if ATTACKS.get(attack).costs is None]
        elif name in ATTACKS.families():
            chosen += ATTACKS.names(name)
        else:
            chosen.append(ATTACKS.resolve(name).name)
    if not chosen:
        raise ConfigurationError("No attack was asked for.", hint="Write --attacks all, or names from `list attacks`.")
    return list(dict.fromkeys(chosen))


def accuracies(signals: Signals, data: AttackData, level: float) -> list[Measurement]:
    """Accuracy on members and on non-members, and their difference, the overfitting level."""
    is_member = np.isin(signals.indices, data.splits.members)
    train = int(signals.correct[is_member].sum()), int(is_member.sum())
    test = int(signals.correct[~is_member].sum()), int((~is_member).sum())
    return [
        rates.rate("target.train_accuracy", *train, direction=Direction.HIGHER, level=level),
        rates.rate("target.test_accuracy", *test, direction=Direction.HIGHER, level=level),
        rates.difference("target.overfitting", train, test, direction=Direction.LOWER, level=level),
    ]


def left_out(names: Sequence[str]) -> list[NotAssessed]:
    """The attacks that ``standard`` leaves out, and why; none if it was not asked for."""
    if "standard" not in names:
        return []
    rest = [name for name in ATTACKS.names() if name not in chosen_attacks(names)]
    return [
        NotAssessed(what=name, why=f"it {ATTACKS.get(name).costs}; ask for it with --attacks {name.rpartition('.')[2]}")
        for name in rest
    ]


def absent_families() -> list[NotAssessed]:
    """The families of attacks, and backdoor detection, of which nothing is installed."""
    why = "no {} of this kind is part of this version"
    absent = [
        NotAssessed(what=title, why=why.format("attack"))
        for family, title in FAMILIES.items()
        if family not in ATTACKS.families()
    ]
    if not len(DETECTORS):
        absent.append(NotAssessed(what="Backdoor detection", why=why.format("detector")))
    return absent


def _obstacle(threat_model: ThreatModel, config: AssessConfig, subject: Subject) -> str | None:
    """Why this threat model can't be played out here, or None."""
    if not subject.target.access.covers(threat_model.access):
        return f"it needs {threat_model.access.value} access"
    available = {Auxiliary.NONE, Auxiliary.PARTIAL}
    if len(subject.splits.shadow_train):
        available.add(Auxiliary.SHADOW)
    if threat_model.auxiliary not in available:
        return f"the {subject.splits.name} split has no {threat_model.auxiliary.value} data"
    if config.auxiliary is not None and threat_model.auxiliary not in {Auxiliary.NONE, *config.auxiliary}:
        return f"it needs {threat_model.auxiliary.value} auxiliary data, which --auxiliary does not give"
    return None


def _run_trial(
    name: str,
    attack: Attack,
    spec: TrialSpec,
    target: Target,
    data: AttackData,
    context: Context,
    store: TrialStore,
    config: AssessConfig,
) -> Trial:
    earlier = None if config.rerun else store.load(spec.id)
    if (
        earlier is not None
        and earlier.status == "ok"
        and earlier.environment.get("securitynet") == environment.version()
    ):
        arrays = store.load_arrays(earlier)
        if arrays is not None:
            output = attack.output.from_arrays(arrays)
            measured = _measure(name, output, config)
            if measured != list(earlier.measurements):  # other levels or rates were asked for this time
                earlier = store.save(earlier.model_copy(update={"measurements": tuple(measured)}), output.arrays())
            return Trial(name, earlier, output, reused=True)
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    try:
        output = attack(target, data, context, spec.threat_model)
        seconds["attack"] = time.perf_counter() - started
        measured = _measure(name, output, config)
        seconds["metrics"] = time.perf_counter() - started - seconds["attack"]
    except Exception as error:  # whatever breaks one attack is recorded, and must not cost the others
        logger.error("%s failed: %s", name, error)
        reason = error.message if isinstance(error, SecurityNetError) else f"{type(error).__name__}: {error}"
        failure = TrialResult(
            spec=spec,
            status="failed",
            reason=reason,
            traceback=traceback.format_exc(),
            queries=context.queries(),
            environment=environment.describe(target),
            finished=_now(),
        )
        return Trial(name, store.save(failure), None)
    result = TrialResult(
        spec=spec,
        status="ok",
        measurements=tuple(measured),
        queries=context.queries(),
        seconds={phase: round(value, 4) for phase, value in seconds.items()},
        environment=environment.describe(target),
        finished=_now(),
    )
    return Trial(name, store.save(result, output.arrays()), output)


def _measure(name: str, output: Output, config: AssessConfig) -> list[Measurement]:
    return [m.renamed(name) for m in output.measurements(level=config.level, fprs=config.fprs, seed=config.seed)]


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
