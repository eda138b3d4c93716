"""The base of learned membership attacks, which keeps training records and scored records apart."""

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
from typing_extensions import override

from securitynet.attacks._shadows import obtain_part_shadow
from securitynet.attacks.base import Attack
from securitynet.attacks.membership._early_stopping import BestEpoch, hold_out_records, update_all
from securitynet.attacks.membership._features import Scale
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.datasets.ordering import unite
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.methods.shared_models import list_shared_shadow
from securitynet.models.shadows import ShadowTraining
from securitynet.models.targets.signals import Signals, collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.batched import Inputs
from securitynet.models.training.ensembles import EnsembleTraining, predict_logits, train_together
from securitynet.randomness import derive_seed, isolate_random_state, seed_global_state
from securitynet.records import Auxiliary

Features = tuple[NDArray[np.float32], ...]
"""Inputs of an attack network, each of shape N×F."""

LEAST_PER_CLASS = 8
"""Smallest number of members, and of non-members, with which a class gets its own network."""

_LEAST_MOVED = 0.02
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Observed:
    """What the adversary observes about records on one model.

    Attributes:
        features: Inputs of the attack network, one row per record.
        classes: True classes, N.
        is_member: Whether that model was trained on each record, N.
    """

    features: Features
    classes: NDArray[np.int64]
    is_member: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """An attack on one target before its networks are trained.

    Attributes:
        known: Observations that the networks learn from.
        wanted: Observations to be scored.
        scored: Outputs of the target for the scored records.
        data: Data of the trial.
        context: Context of the trial.
        notes: Notes for the measurements.
    """

    known: Observed
    wanted: Observed
    scored: Signals
    data: TrialData
    context: Context
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Training:
    """The training of one network: its case, its class (None: all classes), and the records it learns from."""

    case: PreparedCase
    label: int | None
    network: nn.Module
    inputs: Inputs
    rows: torch.Tensor
    members: torch.Tensor
    seed: int


class LearnedAttack(Attack):
    """An attack that trains networks to distinguish members from non-members.

    Under ``partial`` auxiliary data, they learn from the members and non-members that the adversary knows and score
    the others; under ``shadow`` data, they learn from a shadow model on the shadow parts and score all members and
    non-members. No record is both learned from and scored, so every scored record is held out. Members and non-members
    have the same total weight in training. The score is the log-odds of membership, and the threshold is 0.

    Attributes:
        epochs: Number of epochs of the attack network.
        batch_size: Records per batch.
        learning_rate: Learning rate of Adam.
        repeats: Number of attack networks with different seeds, trained together, whose log-odds are averaged.
        per_class: Whether each class has its own network. A class of which the adversary has fewer than
            `LEAST_PER_CLASS` members or non-members uses a network that was trained on all classes.
    """

    output: ClassVar[type[Output]] = MembershipScores
    costs: ClassVar[str | None] = "trains an attack network"

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0, allow_inf_nan=False)
    repeats: int = Field(default=1, ge=1)
    per_class: bool = False

    @property
    def stops_early(self) -> bool:
        """Whether each network is used as it was at its best epoch on held-out known records."""
        return False

    @abstractmethod
    def features(self, model: Target, signals: Signals, data: TrialData, context: Context) -> Features:
        """Compute the inputs of the attack network.

        Args:
            model: The target or a shadow model.
            signals: Outputs of ``model`` for the records.
            data: Data of the trial.
            context: Seed, cache and device.
        """

    @abstractmethod
    def network(self, widths: Sequence[int]) -> nn.Module:
        """Create an attack network that maps inputs of these widths to two logits."""

    def scales(self, features: Features) -> list[Scale]:
        """Fit the scaling of each input to the training records."""
        return [Scale(values) for values in features]

    def shadow(self) -> ShadowTraining:
        """Return how the shadow model is trained."""
        return ShadowTraining()

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """List the shadow model, if the adversary has shadow data."""
        shadow = context.threat_model is not None and context.threat_model.auxiliary is Auxiliary.SHADOW
        return list_shared_shadow(target, data, self.shadow(), context) if shadow else ()

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        return self.run_together([(target, data, context)])[0]

    @override
    def run_together(self, cases: Sequence[tuple[Target, TrialData, Context]]) -> list[MembershipScores]:
        prepared = [self._prepared(*case) for case in cases]
        shapes = [tuple(values.shape[1] for values in one.known.features) for one in prepared]
        results: dict[int, MembershipScores] = {}
        for shape in dict.fromkeys(shapes):  # only networks of one shape can be trained together
            numbers = [number for number, own in enumerate(shapes) if own == shape]
            scores = self._learn([prepared[number] for number in numbers])
            for number, values in zip(numbers, scores, strict=True):
                results[number] = self._judged(prepared[number], values)
        return [results[number] for number in range(len(cases))]

    def _judged(self, prepared: PreparedCase, scores: NDArray[np.float64]) -> MembershipScores:
        records = len(prepared.known.is_member)
        notes = (*prepared.notes, *self._hardly_trained(records), *_says_nothing(scores))
        return MembershipScores.of(prepared.scored, prepared.data, scores, 0.0, notes=notes)

    def _prepared(self, target: Target, data: TrialData, context: Context) -> PreparedCase:
        """Collect everything that is known before networks are trained."""
        auxiliary = context.threat_model.auxiliary if context.threat_model else self.threat_models[0].auxiliary
        signals = context.signals(target, data)
        notes: tuple[str, ...] = ()
        if auxiliary is Auxiliary.SHADOW:
            trained = obtain_part_shadow(target, data, self.shadow(), context)
            records = unite(trained.shadow.members, trained.non_members)
            outputs = collect_signals(trained.shadow.target, data.dataset, records, cache=context.cache)
            known = self._observed(trained.shadow.target, outputs, trained.shadow.members, data, context)
            scored, notes = signals, trained.fidelity
        else:
            splits = data.splits
            taught = unite(splits.known_members, splits.known_non_members)
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
        return PreparedCase(known, wanted, scored, data, context, notes)

    def _observed(
        self, model: Target, signals: Signals, members: NDArray[np.int64], data: TrialData, context: Context
    ) -> Observed:
        features = self.features(model, signals, data, context)
        return Observed(features, signals.labels, np.isin(signals.indices, members))

    def _learn(self, cases: Sequence[PreparedCase]) -> list[NDArray[np.float64]]:
        """Train all networks of all cases together, and score each record with those of its class."""
        trainings: list[_Training] = []
        scales = [self.scales(one.known.features) for one in cases]
        for one, scale in zip(cases, scales, strict=True):
            inputs = _scaled(scale, one.known.features)
            members = torch.from_numpy(one.known.is_member)
            for label, mask in self._groups(one.known, one.wanted.classes):
                rows = torch.from_numpy(np.flatnonzero(mask))
                for number in range(self.repeats):
                    seed = derive_seed(one.context.seed, f"attack network {number}")
                    network = self._fresh([values.shape[1] for values in inputs], seed)
                    trainings.append(_Training(one, label, network, inputs, rows, members[rows], seed))
        context = cases[0].context
        stops = self.stops_early
        held_out = [
            hold_out_records(one.members, one.seed) if stops else torch.zeros_like(one.members) for one in trainings
        ]
        training_members = [one.members[~held] for one, held in zip(trainings, held_out, strict=True)]
        best = [
            BestEpoch(one.network, tuple(values[one.rows[held]] for values in one.inputs), one.members[held])
            for one, held in zip(trainings, held_out, strict=True)
        ]
        train_together(
            [training.network for training in trainings],
            [training.inputs for training in trainings],
            [values.long() for values in training_members],
            EnsembleTraining(epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate),
            seeds=[training.seed for training in trainings],
            weights=[_balancing(values) for values in training_members],
            rows=[one.rows[~held] for one, held in zip(trainings, held_out, strict=True)],
            device=context.device,
            cache=context.cache,
            progress=context.progress,
            after_epoch=(lambda: update_all(best)) if stops else None,
        )
        if stops:
            for epoch in best:
                epoch.restore()
        return [
            self._scores(
                one, _scaled(scale, one.wanted.features), [training for training in trainings if training.case is one]
            )
            for one, scale in zip(cases, scales, strict=True)
        ]

    def _scores(self, case: PreparedCase, inputs: Inputs, trainings: Sequence[_Training]) -> NDArray[np.float64]:
        """Return the log-odds of the scored records from the networks of their class, or else of all classes."""
        scores = np.empty(len(case.wanted.classes))
        own = {training.label for training in trainings}
        answering = np.array([label if label in own else -1 for label in case.wanted.classes])
        for label in np.unique(answering):
            part = np.flatnonzero(answering == label)
            rows = tuple(values[torch.from_numpy(part)] for values in inputs)
            mine = [training for training in trainings if training.label == (None if label < 0 else label)]
            scores[part] = np.mean([_log_odds(training.network, rows) for training in mine], axis=0)
        return scores

    def _groups(self, known: Observed, labels: NDArray[np.int64]) -> list[tuple[int | None, NDArray[np.bool_]]]:
        """List class and training records of each network: one per class with enough records, and one for the rest."""
        groups: list[tuple[int | None, NDArray[np.bool_]]] = []
        for label in np.unique(labels) if self.per_class else ():
            mask = known.classes == label
            if min((mask & known.is_member).sum(), (mask & ~known.is_member).sum()) >= LEAST_PER_CLASS:
                groups.append((int(label), mask))
        if len(groups) < len(np.unique(labels)) or not self.per_class:
            groups.append((None, np.ones(len(known.classes), dtype=bool)))
        return groups

    def _fresh(self, widths: Sequence[int], seed: int) -> nn.Module:
        with isolate_random_state():
            seed_global_state(seed)
            return self.network(widths)

    def _hardly_trained(self, records: int) -> tuple[str, ...]:
        """Return a warning if training was too short: Adam moves a weight by about the learning rate per step."""
        steps = self.epochs * -(-records // self.batch_size)
        if steps * self.learning_rate >= _LEAST_MOVED:
            return ()
        return (
            f"WARNING: the attack network took {steps} steps at a learning rate of {self.learning_rate:g}, which is "
            "too few to learn much; on so few records, use a higher learning rate or more epochs.",
        )


class MLP(nn.Sequential):
    """Linear layers with ReLU between them.

    Args:
        widths: Widths of the input, of each hidden layer, and of the output; at least two.
        last: Whether a ReLU follows the last layer as well.
    """

    def __init__(self, *widths: int, last: bool = False) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*(layers if last else layers[:-1]))


class Joined(nn.Module):
    """One network per input, whose concatenated outputs are the input of another network."""

    def __init__(self, branches: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.head = head

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute logits, N×2."""
        parts = [branch(values) for branch, values in zip(self.branches, inputs, strict=True)]
        logits: torch.Tensor = self.head(torch.cat(parts, dim=-1))
        return logits


def _scaled(scales: Sequence[Scale], features: Features) -> Inputs:
    return tuple(scale(values) for scale, values in zip(scales, features, strict=True))


def _check_widths(known: Features, wanted: Features) -> None:
    """Raise an error if an input differs in width between the shadow model and the target."""
    for of_shadow, of_target in zip(known, wanted, strict=True):
        if of_shadow.shape[1] != of_target.shape[1]:
            raise ConfigurationError(
                f"An input of the attack network has {of_shadow.shape[1]} values for the shadow model and "
                f"{of_target.shape[1]} for the target: their last layers differ in size.",
                hint="Give the shadow model the target's architecture.",
            )


def _says_nothing(scores: NDArray[np.float64]) -> tuple[str, ...]:
    """Return a warning if all scores are equal up to rounding."""
    if np.ptp(scores) > _LEAST_SPREAD:
        return ()
    return (
        "WARNING: the attack network gives all records the same score, as it does if all its units are dead; give it "
        "a lower learning rate.",
    )


def _balancing(is_member: torch.Tensor) -> torch.Tensor:
    """Return weights of mean 1 with which members and non-members count the same."""
    share = is_member.float().mean()
    return torch.where(is_member, 0.5 / share, 0.5 / (1 - share)).float()


def _log_odds(network: nn.Module, inputs: Inputs) -> NDArray[np.float64]:
    logits = predict_logits(network, inputs).double()
    return (logits[:, 1] - logits[:, 0]).numpy()
