"""The plan of a study: its trials, and the reasons why some of them cannot be run.

The id of a trial depends on the content of its target and its data (checksums, fingerprints), so it is known only once
the target has been opened. Until then, the plan contains the expected trials.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securitynet.assessments.method_settings import REGISTRIES, Kind, choose_methods, make_method
from securitynet.assessments.prepare_training import prepare_training
from securitynet.assessments.trial_plan import plan_trials
from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.methods.base import Method
from securitynet.models.sources.references import parse_reference
from securitynet.models.training.config import TrainConfig
from securitynet.records import (
    Access,
    Auxiliary,
    DatasetIdentity,
    SplitIdentity,
    TargetIdentity,
    ThreatModel,
    TrialSpec,
)
from securitynet.results.excluded_entries import ExcludedEntry
from securitynet.results.study_targets import Capabilities, StudyTargetRecord
from securitynet.studies.definition.file import MethodSource, StudyConfig, parse_threat_model, read_study
from securitynet.studies.definition.file_digests import FileDigests
from securitynet.studies.definition.limits import MOST_METHODS, check_combinations, check_count, check_trials
from securitynet.studies.definition.targets import ExpandedTargets, TargetPlan, expand_targets
from securitynet.studies.definition.trial_request import TrialRequest
from securitynet.untrusted import parse_json, read_bytes


@dataclass(frozen=True)
class MethodPlan:
    """An attack or a detector with one set of settings.

    Attributes:
        kind: ``attack`` or ``detector``.
        name: Full name.
        settings: Settings as in the study file.
        method: The configured method.
        wanted: Threat models to restrict the trials to; empty for all.
        seeds: Seeds, one trial for each.
        only: Tags of the targets to run on; empty for all.
    """

    kind: Kind
    name: str
    settings: dict[str, Any]
    method: Method
    wanted: tuple[ThreatModel, ...]
    seeds: tuple[int, ...]
    only: frozenset[str]

    @property
    def shares_work(self) -> bool:
        """Whether its trials may depend on shared work."""
        return type(self.method).shared_work is not Method.shared_work

    @property
    def runs_together(self) -> bool:
        """Whether its trials on several targets may be run in one task."""
        return type(self.method).exact_together

    def concerns(self, target: TargetPlan) -> bool:
        """Return whether the method is to be run on a target."""
        return not self.only or bool(self.only & target.tags)


@dataclass(frozen=True)
class StudyTrial:
    """A trial of a study.

    Attributes:
        name: Prefix of its measurements.
        plan: Its method.
        spec: Its specification; for a target that has not been opened, without checksums.
        obstacle: Why it cannot be run; None if it can.
    """

    name: str
    plan: MethodPlan
    spec: TrialSpec
    obstacle: str | None

    @functools.cached_property
    def id(self) -> str:
        """Id of the trial, if its target has been opened."""
        return self.spec.id

    @property
    def words(self) -> str:
        """Name and settings, for people."""
        settings = ", ".join(f"{name}={value}" for name, value in list_leaves(self.plan.settings))
        seed = f", seed {self.spec.seed}" if len(self.plan.seeds) > 1 else ""
        return f"{self.name}{f' ({settings})' if settings else ''}{seed}"

    def request(self) -> TrialRequest:
        """Return what a worker needs to run the trial."""
        return TrialRequest(
            name=self.name,
            kind=self.plan.kind,
            method=self.plan.name,
            settings=self.plan.settings,
            threat_model=self.spec.threat_model,
            seed=self.spec.seed,
            id=self.id,
        )


@dataclass
class StudyPlan:
    """A study that is ready to run.

    Attributes:
        study: Content of the study file.
        base: Folder of the file.
        text: Text of the file.
        targets: Targets with their data.
        methods: Attacks and detectors.
        excluded: Entries of the catalog that the study asks for and cannot use.
    """

    study: StudyConfig
    base: Path
    text: str
    targets: list[TargetPlan]
    methods: list[MethodPlan] = field(default_factory=list)
    excluded: tuple[ExcludedEntry, ...] = ()

    def trials(self, target: TargetPlan, capabilities: Capabilities) -> list[StudyTrial]:
        """List the trials on a target, each once.

        Args:
            target: The target.
            capabilities: Its capabilities, from its record or from `predict_capabilities`.
        """
        held = target.options.get("auxiliary")
        holds = None if held is None else tuple(Auxiliary(kind) for kind in held)
        trials: list[StudyTrial] = []
        seen: set[str] = set()
        for plan in self.methods:
            if not plan.concerns(target):
                continue
            for seed in plan.seeds:
                for planned in plan_trials(plan.name, plan.method, capabilities, holds, seed, plan.wanted):
                    trial = StudyTrial(planned.name, plan, planned.spec, planned.obstacle)
                    if trial.id not in seen:
                        seen.add(trial.id)
                        trials.append(trial)
        return trials

    def capabilities(self, target: TargetPlan, record: StudyTargetRecord | None) -> Capabilities:
        """Return the capabilities of a target: those recorded when it was opened, else the expected ones."""
        return record.means if record is not None and record.means is not None else predict_capabilities(target)


def plan_study(path: Path, cache: Path | None = None, *, trust: Collection[str] = ()) -> StudyPlan:
    """Read a study file and expand it; nothing is loaded, trained or queried.

    Args:
        path: The study file.
        cache: Folder that stores digests of files.
        trust: Entries of the catalog and references that the user trusts; see `expand_targets`.

    Raises:
        SecurityNetError: If something in the file is invalid.
    """
    study = read_study(path)
    base, digests = path.absolute().parent, FileDigests(cache)
    expanded = expand_targets(study, base, digests, trust)
    return expand(study, base, path.read_text(encoding="utf-8"), digests, expanded)


def expand(
    study: StudyConfig,
    base: Path,
    text: str = "",
    digests: FileDigests | None = None,
    expanded: ExpandedTargets | None = None,
) -> StudyPlan:
    """Expand a study to its plan; see `plan_study`.

    Args:
        study: The study.
        base: Folder of the study file.
        text: Text of the study file.
        digests: Digests of the files that the study names.
        expanded: The targets, if they are expanded already.
    """
    digests = digests or FileDigests()
    expanded = expanded or expand_targets(study, base, digests)
    plan = StudyPlan(study, base, text, expanded.targets, excluded=expanded.excluded)
    digests.save()
    for train in {target.train_key: target.train for target in plan.targets}.values():
        if train is not None:  # wrong settings of a defense or a backdoor are reported now
            prepare_training(TrainConfig.model_validate(train))
    kinds: tuple[tuple[Kind, tuple[MethodSource, ...]], ...] = (
        ("attack", study.attacks),
        ("detector", study.detectors),
    )
    for kind, sources in kinds:
        for number, source in enumerate(sources, start=1):
            try:
                plan.methods += _methods(kind, source, study)
                check_count(len(plan.methods), MOST_METHODS, "attacks and detectors")
            except SecurityNetError as error:
                raise ConfigurationError(f"{kind}s[{number}]: {error.message}", hint=error.hint) from error
    check_trials(
        (target.tags for target in plan.targets), ((method.only, len(method.seeds)) for method in plan.methods)
    )
    return plan


def _methods(kind: Kind, source: MethodSource, study: StudyConfig) -> Iterator[MethodPlan]:
    names = choose_methods(kind, source.name)
    if not names:
        raise ConfigurationError(f"No {kind} is called so.", hint=f"See `securitynet list {kind}s`.")
    wanted = tuple(parse_threat_model(text) for text in source.threat_models)
    fields, values = list(source.grid), list(source.grid.values())
    check_combinations([names, *values], MOST_METHODS, f"{kind}s")
    for name in names:
        REGISTRIES[kind].resolve(name)
        for combination in itertools.product(*values):
            settings: dict[str, Any] = json.loads(json.dumps(source.settings))
            for dotted, value in zip(fields, combination, strict=True):
                _put(settings, dotted, value)
            yield MethodPlan(
                kind=kind,
                name=name,
                settings=settings,
                method=make_method(kind, name, settings),
                wanted=wanted,
                seeds=tuple(dict.fromkeys(source.seeds or study.seeds)),
                only=frozenset(source.only),
            )


def _put(settings: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    table = settings
    for name in parents:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"The grid sets {dotted}, and settings give {name} a value of its own.")
    table[last] = value


def list_leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of nested settings."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from list_leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def predict_capabilities(target: TargetPlan) -> Capabilities:
    """Predict the capabilities of a target that has not been opened; its checksums and fingerprints are unknown."""
    options = target.options
    network = parse_reference(options["model"]).is_network
    access = options.get("access") or (Access.WHITE_BOX if network else Access.BLACK_BOX)
    protocol = _protocol(target)
    elsewhere = options.get("auxiliary_dataset")
    return Capabilities(
        target=TargetIdentity(reference=options["model"], checksum=target.key, preprocessing={}, head="logits"),
        dataset=DatasetIdentity(reference=options.get("dataset") or "", fingerprint=""),
        split=SplitIdentity(name=protocol, fingerprint=""),
        access=Access(access),
        shadow_data=protocol == "four-way",
        auxiliary=DatasetIdentity(reference=elsewhere, fingerprint="") if elsewhere else None,
        precision=options.get("precision", "fp32"),
    )


def _protocol(target: TargetPlan) -> str:
    """Return the name of the expected split."""
    stated = target.options.get("split", "auto")
    if stated != "auto":
        return str(stated)
    if target.train is not None:
        return str(target.train.get("split", "four-way"))
    if "weights" in target.options:
        try:
            record = parse_json(read_bytes(Path(target.options["weights"]).with_suffix(".json")))
            return str(record["split"]["protocol"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
    return "public"
