"""Which trials an assessment consists of, and which of them can't be run here."""

from __future__ import annotations

from dataclasses import dataclass

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.files import stable_hash
from securitynet.models.method import Method
from securitynet.models.trained import TrainedModel
from securitynet.records import FAMILIES, Auxiliary, DatasetIdentity, ThreatModel, TrialSpec
from securitynet.results.document import NotAssessed
from securitynet.studies.config import AssessConfig
from securitynet.studies.methods import REGISTRIES, Kind, chosen, family_of, make_method, parse_settings
from securitynet.studies.subject import Subject


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
    settings = parse_settings(config.configure)
    for name in settings:
        if name not in {full for _, full in asked}:
            raise ConfigurationError(
                f"--configure sets {name}, which is not asked for.", hint="Add it to --attacks or --detectors."
            )
    planned = []
    for kind, name in asked:
        method = make_method(kind, name, settings.get(name, {}))
        served, obstacle = [], None
        for threat_model in method.threat_models:
            obstacle = obstacle_to(threat_model, config, subject)
            if obstacle is None:
                served.append(threat_model)
        for threat_model in served or method.threat_models[:1]:
            label = trial_name(name, method, threat_model if served else None)
            spec = specification(name, method, threat_model, config, subject)
            planned.append(PlannedTrial(label, method, spec, None if served else obstacle))
    return planned


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


def specification(
    name: str, method: Method, threat_model: ThreatModel, config: AssessConfig, subject: Subject
) -> TrialSpec:
    """What a trial of a method under a threat model measures here."""
    elsewhere = subject.auxiliary if threat_model.auxiliary is Auxiliary.OUT_OF_DISTRIBUTION else None
    return TrialSpec(
        target=subject.target.identity,
        dataset=_identity(subject.dataset),
        split=subject.splits.identity,
        kind=method.kind,
        method=name,
        configuration=method.model_dump(mode="json"),
        threat_model=threat_model,
        auxiliary=_identity(elsewhere) if elsewhere else None,
        training=training_digest(subject.trained) if method.imitates and subject.trained else None,
        seed=config.seed,
        precision=config.precision,
    )


def training_digest(trained: TrainedModel) -> str:
    """What models that are trained like a target depend on, of how that was trained."""
    return stable_hash(
        {
            "architecture": trained.architecture,
            "recipe": trained.recipe.model_dump(mode="json", exclude={"seed"}),
            "defense": trained.defense,
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


def absent_families() -> list[NotAssessed]:
    """The families of which nothing is installed."""
    present = {family_of(kind, name) for kind, registry in REGISTRIES.items() for name in registry}
    return [
        NotAssessed(what=title, why="nothing of this kind is part of this version")
        for family, title in FAMILIES.items()
        if family not in present
    ]


def obstacle_to(threat_model: ThreatModel, config: AssessConfig, subject: Subject) -> str | None:
    """Why this threat model can't be played out here, or None."""
    if not subject.target.access.covers(threat_model.access):
        return f"it needs {threat_model.access.value} access"
    if threat_model.auxiliary is Auxiliary.SHADOW and not len(subject.splits.shadow_train):
        return f"the {subject.splits.name} split has no shadow data"
    if threat_model.auxiliary is Auxiliary.OUT_OF_DISTRIBUTION and subject.auxiliary is None:
        return "it needs data of another kind; name a dataset with --auxiliary-dataset"
    if config.auxiliary is not None and threat_model.auxiliary not in {Auxiliary.NONE, *config.auxiliary}:
        return f"it needs {threat_model.auxiliary.value} auxiliary data, which --auxiliary does not give"
    return None


def _identity(dataset: ImageDataset) -> DatasetIdentity:
    return DatasetIdentity(reference=dataset.reference, fingerprint=dataset.fingerprint)
