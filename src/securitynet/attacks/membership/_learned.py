"""What learned membership attacks share: who trains the attack network, who is scored, and how they are kept apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from securitynet.attacks._shadows import shadow_model
from securitynet.attacks.base import Attack
from securitynet.attacks.membership._features import Scale
from securitynet.attacks.membership.base import MembershipScores
from securitynet.datasets.ordering import union
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.base import Output, SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.shared_models import shared_shadow
from securitynet.models.shadows import ShadowTraining
from securitynet.models.targets.signals import Signals, collect
from securitynet.models.targets.target import Target
from securitynet.models.training.batched import Inputs
from securitynet.models.training.ensembles import EnsembleTraining, predict, train_together
from securitynet.randomness import derived_seed, isolated
from securitynet.records import Auxiliary

Features = tuple[NDArray[np.float32], ...]
"""Inputs of an attack network, each N×F."""

LEAST_PER_CLASS = 8
"""Members, and non-members, of a class that a network of its own needs."""

_LEAST_MOVED = 0.02
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Observed:
    """What the adversary sees of records on one model.

    Attributes:
        features: One row per record.
        classes: True classes, N.
        is_member: Of that model, N.
    """

    features: Features
    classes: NDArray[np.int64]
    is_member: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Prepared:
    """An attack on one target before its networks are trained.

    Attributes:
        known: What is learned from.
        wanted: What is scored.
        scored: Outputs of the target for the scored records.
        data: Of the trial.
        context: Of the trial.
        notes: For the measurements.
    """

    known: Observed
    wanted: Observed
    scored: Signals
    data: TrialData
    context: Context
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Job:
    """One network: of which case, for which class (None: all), and what it learns from."""

    case: Prepared
    label: int | None
    network: nn.Module
    inputs: Inputs
    rows: torch.Tensor
    members: torch.Tensor
    seed: int


class LearnedAttack(Attack):
    """An attack that trains networks to tell members from non-members.

    Under ``partial`` auxiliary data they learn from the members and non-members that the adversary knows, and score
    the others; under ``shadow`` data they learn from a shadow model on the shadow parts, and score all members and
    non-members. No record is both learned from and scored, so all that is scored is held out. Members and non-members
    weigh the same in training, however many of each there are; the score is the log-odds of being a member, and the
    decision is at 0.

    Attributes:
        epochs: Passes of the attack network over its training records.
        batch_size: Records a batch.
        learning_rate: Of Adam.
        repeats: Attack networks with different seeds, trained at once, whose log-odds are averaged.
        per_class: Train a network for each class, all at once. A class of which the adversary has fewer than
            `LEAST_PER_CLASS` members or non-members uses one that was trained on all classes.
    """

    output: ClassVar[type[Output]] = MembershipScores
    costs: ClassVar[str | None] = "trains an attack network"

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0, allow_inf_nan=False)
    repeats: int = Field(default=1, ge=1)
    per_class: bool = False

    @abstractmethod
    def features(self, model: Target, signals: Signals, data: TrialData, context: Context) -> Features:
        """Inputs of the attack network for the records of ``signals``, which are outputs of ``model``."""

    @abstractmethod
    def network(self, widths: Sequence[int]) -> nn.Module:
        """A fresh attack network for inputs of these widths, from rows of each to two logits."""

    def scales(self, features: Features) -> list[Scale]:
        """How the inputs are scaled, from those of the training records."""
        return [Scale(values) for values in features]

    def shadow(self) -> ShadowTraining:
        """How a shadow model is trained."""
        return ShadowTraining()

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """The shadow model, where the adversary has shadow data."""
        shadow = context.threat_model is not None and context.threat_model.auxiliary is Auxiliary.SHADOW
        return shared_shadow(target, data, self.shadow(), context) if shadow else ()

    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        """See `Attack.run`."""
        return self.run_together([(target, data, context)])[0]

    def run_together(self, cases: Sequence[tuple[Target, TrialData, Context]]) -> list[MembershipScores]:
        """Run on several targets, whose attack networks are trained at once; see `attack_together`."""
        prepared = [self._prepared(*case) for case in cases]
        shapes = [tuple(values.shape[1] for values in one.known.features) for one in prepared]
        found: dict[int, MembershipScores] = {}
        for shape in dict.fromkeys(shapes):  # networks of other inputs have other layers
            numbers = [number for number, own in enumerate(shapes) if own == shape]
            scores = self._learn([prepared[number] for number in numbers])
            for number, values in zip(numbers, scores, strict=True):
                found[number] = self._judged(prepared[number], values)
        return [found[number] for number in range(len(cases))]

    def _judged(self, prepared: Prepared, scores: NDArray[np.float64]) -> MembershipScores:
        records = len(prepared.known.is_member)
        notes = (*prepared.notes, *self._hardly_trained(records), *_says_nothing(scores))
        return MembershipScores.of(prepared.scored, prepared.data, scores, 0.0, notes=notes)

    def _prepared(self, target: Target, data: TrialData, context: Context) -> Prepared:
        """All that is known before networks are trained."""
        auxiliary = context.threat_model.auxiliary if context.threat_model else self.threat_models[0].auxiliary
        signals = context.signals(target, data)
        notes: tuple[str, ...] = ()
        if auxiliary is Auxiliary.SHADOW:
            found = shadow_model(target, data, self.shadow(), context)
            records = union(found.shadow.members, found.non_members)
            answers = collect(found.shadow.target, data.dataset, records, cache=context.cache)
            known = self._observed(found.shadow.target, answers, found.shadow.members, data, context)
            scored, notes = signals, found.fidelity
        else:
            splits = data.splits
            taught = union(splits.known_members, splits.known_non_members)
            known = self._observed(target, signals.select(taught), splits.members, data, context)
            scored = signals.select(np.setdiff1d(data.judged, taught, assume_unique=True))
        wanted = self._observed(target, scored, data.splits.members, data, context)
        for group, name in ((known, "to learn from"), (wanted, "to score")):
            if not (group.is_member.any() and (~group.is_member).any()):
                raise SplitError(
                    f"The {data.splits.name} split leaves {int(group.is_member.sum())} members and "
                    f"{int((~group.is_member).sum())} non-members {name}; some of both are needed.",
                    hint="Change the share that the adversary knows with --known.",
                )
        _check_widths(known.features, wanted.features)
        return Prepared(known, wanted, scored, data, context, notes)

    def _observed(
        self, model: Target, signals: Signals, members: NDArray[np.int64], data: TrialData, context: Context
    ) -> Observed:
        features = self.features(model, signals, data, context)
        return Observed(features, signals.labels, np.isin(signals.indices, members))

    def _learn(self, cases: Sequence[Prepared]) -> list[NDArray[np.float64]]:
        """Train all networks of all cases at once, and score each record with those that answer for its class."""
        jobs: list[_Job] = []
        scales = [self.scales(one.known.features) for one in cases]
        for one, scale in zip(cases, scales, strict=True):
            inputs = _scaled(scale, one.known.features)
            members = torch.from_numpy(one.known.is_member)
            for label, mask in self._groups(one.known, one.wanted.classes):
                rows = torch.from_numpy(np.flatnonzero(mask))
                for number in range(self.repeats):
                    seed = derived_seed(one.context.seed, f"attack network {number}")
                    network = self._fresh([values.shape[1] for values in inputs], seed)
                    jobs.append(_Job(one, label, network, inputs, rows, members[rows], seed))
        context = cases[0].context
        train_together(
            [job.network for job in jobs],
            [job.inputs for job in jobs],
            [job.members.long() for job in jobs],
            EnsembleTraining(epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate),
            seeds=[job.seed for job in jobs],
            weights=[_balancing(job.members) for job in jobs],
            rows=[job.rows for job in jobs],
            device=context.device,
            cache=context.cache,
            progress=context.progress,
        )
        return [
            self._scores(one, _scaled(scale, one.wanted.features), [job for job in jobs if job.case is one])
            for one, scale in zip(cases, scales, strict=True)
        ]

    def _scores(self, case: Prepared, asked: Inputs, jobs: Sequence[_Job]) -> NDArray[np.float64]:
        """Log-odds of the scored records, by the networks of their class, or else by those of all."""
        scores = np.empty(len(case.wanted.classes))
        own = {job.label for job in jobs}
        answering = np.array([label if label in own else -1 for label in case.wanted.classes])
        for label in np.unique(answering):
            part = np.flatnonzero(answering == label)
            rows = tuple(values[torch.from_numpy(part)] for values in asked)
            mine = [job for job in jobs if job.label == (None if label < 0 else label)]
            scores[part] = np.mean([_log_odds(job.network, rows) for job in mine], axis=0)
        return scores

    def _groups(self, known: Observed, asked: NDArray[np.int64]) -> list[tuple[int | None, NDArray[np.bool_]]]:
        """Class and records of each network: of each class that has enough, and of all classes if another is asked."""
        groups: list[tuple[int | None, NDArray[np.bool_]]] = []
        for label in np.unique(asked) if self.per_class else ():
            mask = known.classes == label
            if min((mask & known.is_member).sum(), (mask & ~known.is_member).sum()) >= LEAST_PER_CLASS:
                groups.append((int(label), mask))
        if len(groups) < len(np.unique(asked)) or not self.per_class:
            groups.append((None, np.ones(len(known.classes), dtype=bool)))
        return groups

    def _fresh(self, widths: Sequence[int], seed: int) -> nn.Module:
        with isolated():
            torch.manual_seed(seed)
            return self.network(widths)

    def _hardly_trained(self, records: int) -> tuple[str, ...]:
        """A note where Adam, which moves a weight by about the learning rate a step, can't have got anywhere."""
        steps = self.epochs * -(-records // self.batch_size)
        if steps * self.learning_rate >= _LEAST_MOVED:
            return ()
        return (
            f"WARNING: the attack network took {steps} steps at a learning rate of {self.learning_rate:g}, which is "
            "too few to learn much; give it a higher learning rate or more epochs on so little data.",
        )


class MLP(nn.Sequential):
    """Linear layers with ReLU between them.

    Args:
        widths: Of the input, of each hidden layer, and of the output; at least two.
        last: Whether a ReLU follows the last layer too.
    """

    def __init__(self, *widths: int, last: bool = False) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*(layers if last else layers[:-1]))


class Joined(nn.Module):
    """A network of its own for each input, whose outputs are joined and fed to another."""

    def __init__(self, branches: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.head = head

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits, N×2."""
        parts = [branch(values) for branch, values in zip(self.branches, inputs, strict=True)]
        logits: torch.Tensor = self.head(torch.cat(parts, dim=-1))
        return logits


def _scaled(scales: Sequence[Scale], features: Features) -> Inputs:
    return tuple(scale(values) for scale, values in zip(scales, features, strict=True))


def _check_widths(known: Features, wanted: Features) -> None:
    """Raise an error if the shadow model and the target differ in the length of what they show."""
    for of_shadow, of_target in zip(known, wanted, strict=True):
        if of_shadow.shape[1] != of_target.shape[1]:
            raise ConfigurationError(
                f"An input of the attack network has {of_shadow.shape[1]} values for the shadow model and "
                f"{of_target.shape[1]} for the target: their last layers differ in size.",
                hint="Give the shadow model the target's architecture.",
            )


def _says_nothing(scores: NDArray[np.float64]) -> tuple[str, ...]:
    """A note where all scores are the same but for rounding."""
    if np.ptp(scores) > _LEAST_SPREAD:
        return ()
    return (
        "WARNING: the attack network gives all records the same score, as one does whose units have all died; give it "
        "a lower learning rate.",
    )


def _balancing(is_member: torch.Tensor) -> torch.Tensor:
    """Weights of mean 1 with which members and non-members count the same."""
    share = is_member.float().mean()
    return torch.where(is_member, 0.5 / share, 0.5 / (1 - share)).float()


def _log_odds(network: nn.Module, inputs: Inputs) -> NDArray[np.float64]:
    logits = predict(network, inputs).double()
    return (logits[:, 1] - logits[:, 0]).numpy()
