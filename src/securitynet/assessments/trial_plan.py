"""Which trials an assessment consists of, and which of them can't be run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from securitynet.assessments.assessed_target import Subject
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.method_settings import REGISTRIES, Kind, chosen, family_of, make_method, parse_settings
from securitynet.assessments.output_defense import settings_of_methods
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.files import stable_hash
from securitynet.methods.base import Method
from securitynet.models.store.model_record import TargetRecord
from securitynet.records import FAMILIES, Auxiliary, DatasetIdentity, ThreatModel, TrialSpec
from securitynet.results.document import NotAssessed
from securitynet.results.subjects import Means


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that is to be run.

    Attributes:
        name: Which its measurements carry: ``membership.ml-doctor-black-box@shadow``, ``backdoor.strip``.
        method: The attack or detector, configured.
        spec: What is to be measured.
        obstacle: Why it will be skipped; None if it will be run.
    """

    name: str
    method: Method
    spec: TrialSpec
    obstacle: str | None = None


def plan(config: AssessConfig, subject: Subject) -> list[PlannedTrial]:
    """All trials that were asked for, one for each threat model that can be played out here.

    Raises:
        UnknownName: If an attack or a detector was asked for that does not exist.
        ConfigurationError: If none was asked for, or a setting is wrong.
    """
    asked = asked_for(config)
    settings = parse_settings(settings_of_methods(config))
    for name in settings:
        if name not in {full for _, full in asked}:
            raise ConfigurationError(
                f"--configure sets {name}, which is not asked for.", hint="Add it to --attacks or --detectors."
            )
    planned, means = [], means_of(subject)
    for kind, name in asked:
        method = make_method(kind, name, settings.get(name, {}))
        planned += trials_of(name, method, means, config.auxiliary, config.seed)
    return planned


def trials_of(
    name: str,
    method: Method,
    means: Means,
    held: Sequence[Auxiliary] | None,
    seed: int,
    wanted: Sequence[ThreatModel] = (),
) -> list[PlannedTrial]:
    """The trials of a method on a subject: one for each threat model that can be played out, or one with an obstacle.

    Args:
        name: Full name of the method.
        method: Configured.
        means: What the subject offers.
        held: Kinds of data that the adversary may hold; None for all.
        seed: Of the trials.
        wanted: Threat models to keep to; none for all.
    """
    candidates = [threat for threat in method.threat_models if not wanted or threat in wanted]
    served, obstacle = [], f"it does not serve {' or '.join(map(str, wanted))}" if not candidates else None
    for threat_model in candidates:
        obstacle = obstacle_to(threat_model, held, means)
        if obstacle is None:
            served.append(threat_model)
    return [
        PlannedTrial(
            trial_name(name, method, threat_model if served else None),
            method,
            specification(name, method, threat_model, means, seed),
            None if served else obstacle,
        )
        for threat_model in served or (candidates or method.threat_models)[:1]
    ]


def means_of(subject: Subject) -> Means:
    """What a subject offers: see `Means`."""
    return Means(
        target=subject.target.identity,
        dataset=_identity(subject.dataset),
        split=subject.splits.identity,
        access=subject.target.access,
        shadow_data=bool(len(subject.splits.shadow_train)),
        auxiliary=_identity(subject.auxiliary) if subject.auxiliary else None,
        training=training_digest(subject.trained) if subject.trained else None,
        precision=subject.target.precision,
    )


def asked_for(config: AssessConfig) -> list[tuple[Kind, str]]:
    """(kind, full name) of all attacks and detectors that a configuration asks for.

    Raises:
        UnknownName: If one does not exist.
        ConfigurationError: If there is none.
    """
    asked: list[tuple[Kind, str]] = [("attack", name) for name in chosen("attack", config.attacks)]
    asked += [("detector", name) for name in chosen("detector", config.detectors)]
    if not asked:
        raise ConfigurationError(
            "No attack and no detector was asked for.", hint="Write --attacks all, or names from `list attacks`."
        )
    return asked


def specification(name: str, method: Method, threat_model: ThreatModel, means: Means, seed: int) -> TrialSpec:
    """What a trial of a method under a threat model measures on a subject."""
    elsewhere = threat_model.auxiliary is Auxiliary.OUT_OF_DISTRIBUTION
    return TrialSpec(
        target=means.target,
        dataset=means.dataset,
        split=means.split,
        kind=method.kind,
        method=name,
        configuration=method.model_dump(mode="json"),
        threat_model=threat_model,
        auxiliary=means.auxiliary if elsewhere else None,
        training=means.training if method.imitates else None,
        seed=seed,
        precision=means.precision,
    )


def training_digest(trained: TargetRecord) -> str:
    """What models that are trained like a target depend on, of how that was trained."""
    defense = trained.defense
    return stable_hash(
        {
            "architecture": trained.architecture,
            "recipe": trained.recipe.model_dump(mode="json", exclude={"seed"}),
            "defense": {**defense.model_dump(mode="json", include={"name", "settings"}), "imitated": 1}
            if defense
            else None,
        },
        16,
    )


def trial_name(name: str, method: Method, threat_model: ThreatModel | None) -> str:
    """Name of a trial: its family, its method and, if that serves several threat models, which is played out."""
    full = name if method.kind == "attack" else f"backdoor.{name}"
    if threat_model is None or len(method.threat_models) == 1:
        return full
    several = {served.access for served in method.threat_models if served.auxiliary is threat_model.auxiliary}
    access = f"{threat_model.access.value}-" if len(several) > 1 else ""
    return f"{full}@{access}{threat_model.auxiliary.value}"


def left_out(config: AssessConfig) -> list[NotAssessed]:
    """The attacks and detectors that ``standard`` leaves out, and why; none where it was not asked for."""
    found = []
    asked = set(asked_for(config))
    wanted: dict[Kind, tuple[str, ...]] = {"attack": config.attacks, "detector": config.detectors}
    for kind, names in wanted.items():
        if "standard" not in names:
            continue
        registry = REGISTRIES[kind]
        found += [
            NotAssessed(
                what=name if kind == "attack" else f"backdoor.{name}",
                why=f"it {registry.get(name).costs}; ask for it with --{kind}s {name.rpartition('.')[2]}",
            )
            for name in registry.names()
            if (kind, name) not in asked
        ]
    return found


def absent_families(config: AssessConfig) -> list[NotAssessed]:
    """The families of which nothing was asked for; those of which ``standard`` leaves out parts are named there."""
    asked = {family_of(kind, name) for kind, name in asked_for(config)}
    named = {item.what.partition(".")[0] for item in left_out(config)}
    return [
        NotAssessed(what=title, why="nothing of this kind was asked for; see --attacks and --detectors")
        for family, title in FAMILIES.items()
        if family not in asked | named
    ]


def obstacle_to(threat_model: ThreatModel, held: Sequence[Auxiliary] | None, means: Means) -> str | None:
    """Why this threat model can't be played out here, or None.

    Args:
        threat_model: Which one.
        held: Kinds of data that the adversary may hold; None for all.
        means: What the subject offers.
    """
    if not means.access.covers(threat_model.access):
        return f"it needs {threat_model.access.value} access"
    if threat_model.auxiliary is Auxiliary.SHADOW and not means.shadow_data:
        return f"the {means.split.name} split has no shadow data"
    if threat_model.auxiliary is Auxiliary.OUT_OF_DISTRIBUTION and means.auxiliary is None:
        return "it needs data of another kind; name a dataset with --auxiliary-dataset"
    if held is not None and threat_model.auxiliary not in {Auxiliary.NONE, *held}:
        return f"it needs {threat_model.auxiliary.value} auxiliary data, which --auxiliary does not give"
    return None


def _identity(dataset: ImageDataset) -> DatasetIdentity:
    return DatasetIdentity(reference=dataset.reference, fingerprint=dataset.fingerprint)
