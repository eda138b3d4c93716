"""The trials of an assessment, and the reasons why some of them cannot be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from securitynet.assessments.assessed_target import AssessedTarget
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.method_settings import (
    REGISTRIES,
    Kind,
    choose_methods,
    find_family,
    make_method,
    parse_method_settings,
)
from securitynet.assessments.output_defense import list_method_settings
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.references import strip_location
from securitynet.errors import ConfigurationError
from securitynet.files import hash_stably
from securitynet.methods.base import Method
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.trainable import Architecture, find_architecture
from securitynet.records import FAMILIES, Auxiliary, DatasetIdentity, ThreatModel, TrialSpec
from securitynet.results.document import NotAssessed
from securitynet.results.study_targets import Capabilities


@dataclass(frozen=True)
class PlannedTrial:
    """A planned trial.

    Attributes:
        name: Prefix of its measurements, such as ``membership.ml-doctor-black-box@shadow`` or ``backdoor.strip``.
        method: The configured attack or detector.
        spec: Specification, which determines the trial's id.
        obstacle: Why the trial will be skipped; None if it will be run.
    """

    name: str
    method: Method
    spec: TrialSpec
    obstacle: str | None = None


def plan(config: AssessConfig, assessed: AssessedTarget) -> list[PlannedTrial]:
    """Plan all requested trials, one for each applicable threat model.

    Raises:
        UnknownName: If a requested attack or detector does not exist.
        ConfigurationError: If none was requested, or a setting is wrong.
    """
    requested = list_requested(config)
    settings = parse_method_settings(list_method_settings(config))
    for name in settings:
        if name not in {full for _, full in requested}:
            raise ConfigurationError(
                f"--configure sets {name}, which is not requested.", hint="Add it to --attacks or --detectors."
            )
    takers = [name for kind, name in requested if "references" in REGISTRIES[kind].get(name).model_fields]
    if config.reference_models and not takers:
        raise ConfigurationError(
            "--reference-models is for attacks that compare the target with other models, and none is requested.",
            hint="Ask for --attacks rmia, rmia-offline or reference-calibration.",
        )
    planned, capabilities = [], describe_capabilities(assessed)
    for kind, name in requested:
        own = settings.get(name, {})
        if config.reference_models and name in takers:
            own = {"references": list(config.reference_models), **own}
        method = make_method(kind, name, own)
        planned += plan_trials(name, method, capabilities, config.auxiliary, config.seed)
    return planned


def plan_trials(
    name: str,
    method: Method,
    capabilities: Capabilities,
    held: Sequence[Auxiliary] | None,
    seed: int,
    wanted: Sequence[ThreatModel] = (),
) -> list[PlannedTrial]:
    """Plan the trials of a method on a target: one for each applicable threat model, or one with an obstacle.

    Args:
        name: Full name of the method.
        method: The configured method.
        capabilities: Capabilities of the target.
        held: Kinds of auxiliary data that the adversary may hold; None for all.
        seed: Seed of the trials.
        wanted: Threat models to restrict the trials to; empty for all.
    """
    candidates = [threat for threat in method.threat_models if not wanted or threat in wanted]
    served, obstacle = [], f"it does not support {' or '.join(map(str, wanted))}" if not candidates else None
    for threat_model in candidates:
        obstacle = find_target_obstacle(threat_model, held, capabilities, needs_shadow_parts=method.needs_shadow_parts)
        if obstacle is None:
            served.append(threat_model)
    return [
        PlannedTrial(
            name_trial(name, method, threat_model if served else None),
            method,
            make_specification(name, method, threat_model, capabilities, seed),
            None if served else obstacle,
        )
        for threat_model in served or (candidates or method.threat_models)[:1]
    ]


def describe_capabilities(assessed: AssessedTarget) -> Capabilities:
    """Describe the capabilities of a target, which decide the applicable threat models."""
    return Capabilities(
        target=assessed.target.identity,
        dataset=_identity(assessed.dataset),
        split=assessed.splits.identity,
        access=assessed.target.access,
        shadow_data=bool(len(assessed.splits.shadow_train)),
        auxiliary=_identity(assessed.auxiliary) if assessed.auxiliary else None,
        training=_digest_imitation(assessed),
        precision=assessed.target.precision,
    )


def list_requested(config: AssessConfig) -> list[tuple[Kind, str]]:
    """List (kind, full name) of all attacks and detectors that a configuration requests.

    Raises:
        UnknownName: If one does not exist.
        ConfigurationError: If there is none.
    """
    requested: list[tuple[Kind, str]] = [("attack", name) for name in choose_methods("attack", config.attacks)]
    requested += [("detector", name) for name in choose_methods("detector", config.detectors)]
    if not requested:
        raise ConfigurationError(
            "No attack and no detector is requested.", hint="Write --attacks all, or names from `list attacks`."
        )
    return requested


def make_specification(
    name: str, method: Method, threat_model: ThreatModel, capabilities: Capabilities, seed: int
) -> TrialSpec:
    """Make the specification of a trial.

    Args:
        name: Full name of the method.
        method: The configured method.
        threat_model: The threat model.
        capabilities: Capabilities of the target.
        seed: Seed of the trial.
    """
    elsewhere = threat_model.auxiliary is Auxiliary.OUT_OF_DISTRIBUTION
    return TrialSpec(
        target=capabilities.target,
        dataset=capabilities.dataset,
        split=capabilities.split,
        kind=method.kind,
        method=name,
        configuration=method.model_dump(mode="json"),
        method_version=method.version,
        threat_model=threat_model,
        auxiliary=capabilities.auxiliary if elsewhere else None,
        training=_digest_models(method, capabilities),
        seed=seed,
        precision=capabilities.precision,
    )


def _digest_imitation(assessed: AssessedTarget) -> str | None:
    """What models that are trained like a target depend on; None where all of it is in the target's own checksum."""
    target, trained = assessed.target, assessed.trained
    if target.architecture is None:
        return digest_training(trained) if trained else None
    architecture = find_architecture(target.architecture)
    if trained is not None:
        return digest_training(trained, architecture)
    if target.without_interface().reference == f"arch:{architecture.name}":
        return None
    return hash_stably({"architecture": architecture.name, "version": architecture.version}, 16)


def _digest_models(method: Method, capabilities: Capabilities) -> str | None:
    """What the models that a method trains depend on, besides its own settings."""
    training = capabilities.training if method.trains_like_target else None
    versions = dict(_list_versions(method.model_dump(mode="json")))
    return hash_stably({"training": training, "versions": versions}, 16) if versions else training


def _list_versions(settings: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(place, version) of architectures in a method's settings that code outside this package builds."""
    if not isinstance(settings, dict):
        return
    for name, value in settings.items():
        if name in ("architecture", "students") and isinstance(value, str) and ":" in value:
            yield f"{place}{name}", find_architecture(value).version
        yield from _list_versions(value, f"{place}{name}.")


def digest_training(trained: TargetRecord, architecture: Architecture | None = None) -> str:
    """What models that are trained like a target depend on, of how that was trained.

    Args:
        trained: The target's record.
        architecture: Of the models; that in the record by default.
    """
    defense = trained.defense
    name = architecture.name if architecture else trained.architecture
    version = architecture.version if architecture else trained.architecture_version
    return hash_stably(
        {
            "architecture": name,
            **({"version": version} if version else {}),
            "recipe": trained.recipe.model_dump(mode="json", exclude={"seed"}),
            "defense": {**defense.model_dump(mode="json", include={"name", "settings"}), "imitated": 1}
            if defense
            else None,
        },
        16,
    )


def name_trial(name: str, method: Method, threat_model: ThreatModel | None) -> str:
    """Name a trial by its family, its method and, if the method supports several threat models, the threat model.

    Args:
        name: Full name of the method.
        method: The method.
        threat_model: The threat model of the trial.
    """
    full = name if method.kind == "attack" else f"backdoor.{name}"
    if threat_model is None or len(method.threat_models) == 1:
        return full
    several = {served.access for served in method.threat_models if served.auxiliary is threat_model.auxiliary}
    access = f"{threat_model.access.value}-" if len(several) > 1 else ""
    return f"{full}@{access}{threat_model.auxiliary.value}"


def list_left_out(config: AssessConfig) -> list[NotAssessed]:
    """List the attacks and detectors that ``standard`` leaves out, and why; none if ``standard`` was not requested."""
    left_out = []
    requested = set(list_requested(config))
    wanted: dict[Kind, tuple[str, ...]] = {"attack": config.attacks, "detector": config.detectors}
    for kind, names in wanted.items():
        if "standard" not in names:
            continue
        registry = REGISTRIES[kind]
        left_out += [
            NotAssessed(
                what=name if kind == "attack" else f"backdoor.{name}",
                why=f"it {registry.get(name).costs}; request it with --{kind}s {name.rpartition('.')[2]}",
            )
            for name in registry.names()
            if (kind, name) not in requested
        ]
    return left_out


def list_absent_families(config: AssessConfig) -> list[NotAssessed]:
    """List the families of which nothing was requested, except those that `list_left_out` names."""
    requested = {find_family(kind, name) for kind, name in list_requested(config)}
    named = {item.what.partition(".")[0] for item in list_left_out(config)}
    return [
        NotAssessed(what=title, why="nothing of this kind was asked for; see --attacks and --detectors")
        for family, title in FAMILIES.items()
        if family not in requested | named
    ]


def find_target_obstacle(
    threat_model: ThreatModel,
    held: Sequence[Auxiliary] | None,
    capabilities: Capabilities,
    *,
    needs_shadow_parts: bool = True,
) -> str | None:
    """Return why a threat model does not apply to a target, or None if it does.

    Args:
        threat_model: The threat model.
        held: Kinds of auxiliary data that the adversary may hold; None for all.
        capabilities: Capabilities of the target.
        needs_shadow_parts: Whether shadow data must be shadow parts of the split.
    """
    if not capabilities.access.covers(threat_model.access):
        return f"it needs {threat_model.access.value} access"
    if threat_model.auxiliary is Auxiliary.SHADOW and needs_shadow_parts and not capabilities.shadow_data:
        return f"the {capabilities.split.name} split has no shadow data"
    if threat_model.auxiliary is Auxiliary.OUT_OF_DISTRIBUTION and capabilities.auxiliary is None:
        return "it needs out-of-distribution data; name a dataset with --auxiliary-dataset"
    if held is not None and threat_model.auxiliary not in {Auxiliary.NONE, *held}:
        return f"it needs {threat_model.auxiliary.value} auxiliary data, which --auxiliary excludes"
    return None


def _identity(dataset: ImageDataset) -> DatasetIdentity:
    # The fingerprint identifies the images; results are shared, and need not tell where this machine keeps them.
    return DatasetIdentity(reference=strip_location(dataset.reference), fingerprint=dataset.fingerprint)
