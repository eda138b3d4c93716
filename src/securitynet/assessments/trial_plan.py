"""Which trials an assessment consists of, and which of them can't be run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from securitynet.assessments.assessed_target import AssessedTarget
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.method_settings import (
    REGISTRIES,
    Kind,
    choose_methods,
    find_family,
    make_method,
    parse_settings,
)
from securitynet.assessments.output_defense import list_method_settings
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


def plan(config: AssessConfig, assessed: AssessedTarget) -> list[PlannedTrial]:
    """All trials that were asked for, one for each threat model that can be played out here.

    Raises:
        UnknownName: If an attack or a detector was asked for that does not exist.
        ConfigurationError: If none was asked for, or a setting is wrong.
    """
    asked = list_requested(config)
    settings = parse_settings(list_method_settings(config))
    for name in settings:
        if name not in {full for _, full in asked}:
            raise ConfigurationError(
                f"--configure sets {name}, which is not asked for.", hint="Add it to --attacks or --detectors."
            )
    planned, means = [], means_of(assessed)
    for kind, name in asked:
        method = make_method(kind, name, settings.get(name, {}))
        planned += plan_trials(name, method, means, config.auxiliary, config.seed)
    return planned


def plan_trials(
    name: str,
    method: Method,
    means: Means,
    held: Sequence[Auxiliary] | None,
    seed: int,
    wanted: Sequence[ThreatModel] = (),
) -> list[PlannedTrial]:
    """The trials of a method on a target: one for each threat model that can be played out, or one with an obstacle.

    Args:
        name: Full name of the method.
        method: Configured.
        means: What the target offers.
        held: Kinds of data that the adversary may hold; None for all.
        seed: Of the trials.
        wanted: Threat models to keep to; none for all.
    """
    candidates = [threat for threat in method.threat_models if not wanted or threat in wanted]
    served, obstacle = [], f"it does not serve {' or '.join(map(str, wanted))}" if not candidates else None
    for threat_model in candidates:
        obstacle = find_obstacle(threat_model, held, means)
        if obstacle is None:
            served.append(threat_model)
    return [
        PlannedTrial(
            name_trial(name, method, threat_model if served else None),
            method,
            make_specification(name, method, threat_model, means, seed),
            None if served else obstacle,
        )
        for threat_model in served or (candidates or method.threat_models)[:1]
    ]


def means_of(assessed: AssessedTarget) -> Means:
    """What a target offers: see `Means`."""
    return Means(
        target=assessed.target.identity,
        dataset=_identity(assessed.dataset),
        split=assessed.splits.identity,
        access=assessed.target.access,
        shadow_data=bool(len(assessed.splits.shadow_train)),
        auxiliary=_identity(assessed.auxiliary) if assessed.auxiliary else None,
        training=digest_training(assessed.trained) if assessed.trained else None,
        precision=assessed.target.precision,
    )


def list_requested(config: AssessConfig) -> list[tuple[Kind, str]]:
    """(kind, full name) of all attacks and detectors that a configuration asks for.

    Raises:
        UnknownName: If one does not exist.
        ConfigurationError: If there is none.
    """
    asked: list[tuple[Kind, str]] = [("attack", name) for name in choose_methods("attack", config.attacks)]
    asked += [("detector", name) for name in choose_methods("detector", config.detectors)]
    if not asked:
        raise ConfigurationError(
            "No attack and no detector was asked for.", hint="Write --attacks all, or names from `list attacks`."
        )
    return asked


def make_specification(name: str, method: Method, threat_model: ThreatModel, means: Means, seed: int) -> TrialSpec:
    """What a trial of a method under a threat model measures on a target."""
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


def digest_training(trained: TargetRecord) -> str:
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


def name_trial(name: str, method: Method, threat_model: ThreatModel | None) -> str:
    """Name of a trial: its family, its method and, if that serves several threat models, which is played out."""
    full = name if method.kind == "attack" else f"backdoor.{name}"
    if threat_model is None or len(method.threat_models) == 1:
        return full
    several = {served.access for served in method.threat_models if served.auxiliary is threat_model.auxiliary}
    access = f"{threat_model.access.value}-" if len(several) > 1 else ""
    return f"{full}@{access}{threat_model.auxiliary.value}"


def list_left_out(config: AssessConfig) -> list[NotAssessed]:
    """The attacks and detectors that ``standard`` leaves out, and why; none where it was not asked for."""
    found = []
    asked = set(list_requested(config))
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


def list_absent_families(config: AssessConfig) -> list[NotAssessed]:
    """The families of which nothing was asked for; those of which ``standard`` leaves out parts are named there."""
    asked = {find_family(kind, name) for kind, name in list_requested(config)}
    named = {item.what.partition(".")[0] for item in list_left_out(config)}
    return [
        NotAssessed(what=title, why="nothing of this kind was asked for; see --attacks and --detectors")
        for family, title in FAMILIES.items()
        if family not in asked | named
    ]


def find_obstacle(threat_model: ThreatModel, held: Sequence[Auxiliary] | None, means: Means) -> str | None:
    """Why this threat model can't be played out here, or None.

    Args:
        threat_model: Which one.
        held: Kinds of data that the adversary may hold; None for all.
        means: What the target offers.
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
