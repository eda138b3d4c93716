"""Attribute inference from embeddings: a 2-layer network learns an attribute from the second-to-last layer's output.

ML-Doctor, sections 3.3 and 5.2 (after Song and Shmatikov, 2020): cross-entropy, 50 epochs of Adam at 1e-3 on the known
part of the training set, or on the shadow-train part. The width of the hidden layer is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.special import softmax
from torch import nn

from securitynet.attacks.attribute._embedding_networks import (
    EmbeddingScale,
    build_attack_network,
    compute_logits,
    weigh_logits,
    weigh_network,
    weigh_values,
)
from securitynet.attacks.attribute._random_network import embed_randomly, take_pixels
from securitynet.attacks.attribute.base import (
    Inferred,
    InferredAttributes,
    choose_attributes,
    explain_single_value,
    find_annotated,
    select_known_records,
)
from securitynet.attacks.base import Attack
from securitynet.datasets.base import Attribute
from securitynet.errors import ConfigurationError, SecurityNetError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics.attribute import label_majority
from securitynet.models.targets.target import Target
from securitynet.models.training.ensembles import EnsembleTraining, train_together
from securitynet.randomness import derive_seed, make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

_FOLDS = 5
_HELD_BACK = 1000
"""Number of records to hold back, fold by fold, for the weight of the networks; all records if there are fewer."""

RANDOM_NETWORKS = 3
"""Networks with random weights that the target is compared with."""

_TOGETHER_BYTES = 1 << 29


class EmbeddingMLP(Attack):
    """One network for each attribute; attributes with the same number of values are trained together.

    All values have the same total weight in training, so that rare values are learned as well as frequent ones. For the
    decision, the network's posterior is combined with the frequencies of the values among the records that the
    adversary knows. Its weight is the one that works best on records held back from training (`weigh_network`), so that
    a network that merely memorised its records is ignored. Records without annotation (-1) are neither used for
    training nor evaluated. The same attack is run on the embeddings of networks of the same architecture with random
    weights, and on pixels: what it gains there is not due to the target's training.

    Attributes:
        attributes: Attributes to infer; by default all of the dataset. On the command line: ``slant+thickness``.
            ``Male*Young`` is one attribute with the values of both together.
        layer: Name of the layer whose output is the embedding, or ``NAME:input`` for the input of a layer; by default
            the input of the final classifier, located by tracing.
        judged: Records on which the attack is evaluated: ``non-members``, as in the paper (the target's testing
            dataset), or ``members`` whose attributes the adversary does not know.
        balanced: Whether all values have the same total weight in training.
        neurons: Width of the hidden layer.
        epochs: Number of epochs.
        batch_size: Records per batch.
        learning_rate: Learning rate of Adam.
        repeats: Number of networks with different seeds for each attribute, whose logits are averaged.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.SHADOW),
    )
    output: ClassVar[type[Output]] = InferredAttributes
    costs: ClassVar[str | None] = "computes embeddings and trains a network for each attribute"

    attributes: tuple[str, ...] | None = None
    layer: str | None = None
    judged: Literal["non-members", "members"] = "non-members"
    balanced: bool = True
    neurons: int = Field(default=64, ge=1)
    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    repeats: int = Field(default=1, ge=1)

    @field_validator("attributes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split("+")) if isinstance(value, str) else value

    def run(self, target: Target, data: TrialData, context: Context) -> InferredAttributes:
        """Infer the attributes; arguments as for `Attack.run`.

        Raises:
            ConfigurationError: If the dataset has no attributes, or one has only one value.
            UnknownName: If the dataset lacks a requested attribute.
            SplitError: If there are no records to learn from or to evaluate on.
            ModelError: If the target has no embeddings.
        """
        auxiliary = context.threat_model.auxiliary if context.threat_model else self.threat_models[0].auxiliary
        tasks = self._tasks(data, auxiliary)
        everyone = np.unique(np.concatenate([part for task in tasks for part in (task.learned, task.judged)]))
        target.require(Access.WHITE_BOX, "embeddings")
        embeddings = context.embeddings(target, data.dataset, everyone, layer=self.layer)
        embedded_randomly, reason = self._embed_randomly(target, data, everyone, context)
        features = [embeddings.values, *embedded_randomly]
        if sum(values.nbytes for values in features) <= _TOGETHER_BYTES:  # takes little longer than one alone
            own, *random = self._infer(tasks, everyone, features, context)
        else:
            own, *random = [self._infer(tasks, everyone, [values], context)[0] for values in features]
        (pixels,) = self._infer(tasks, everyone, [take_pixels(data.dataset, everyone)], context)
        notes = () if reason is None else (reason,)
        return InferredAttributes(
            tuple(
                self._inferred(task, own[task.name], [one[task.name] for one in random], pixels[task.name], data, notes)
                for task in tasks
            )
        )

    def _infer(
        self,
        tasks: Sequence[_Task],
        everyone: NDArray[np.int64],
        features: Sequence[NDArray[np.float32]],
        context: Context,
    ) -> list[dict[str, _Inferred]]:
        """Infer each attribute, by its name, from each of several kinds of features of all records."""
        learned = np.isin(everyone, np.concatenate([task.learned for task in tasks]))
        inputs = [EmbeddingScale(values[learned])(values) for values in features]
        inferred: list[dict[str, _Inferred]] = [{} for _ in inputs]
        for size in sorted({len(task.attribute.names) for task in tasks}):
            group = [task for task in tasks if len(task.attribute.names) == size]
            for whole, part in zip(inferred, self._learn(group, everyone, inputs, context), strict=True):
                whole.update(part)
        return inferred

    def _embed_randomly(
        self, target: Target, data: TrialData, everyone: NDArray[np.int64], context: Context
    ) -> tuple[list[NDArray[np.float32]], str | None]:
        """Embeddings by each random network, and why there are none, if there are none."""
        by_network = []
        for number in range(RANDOM_NETWORKS):
            try:
                embeddings = embed_randomly(
                    target,
                    data.dataset,
                    everyone,
                    layer=self.layer,
                    seed=derive_seed(context.seed, "attribute control", number),
                    cache=context.cache,
                    progress=context.progress,
                )
            except SecurityNetError as error:  # the target's own embeddings are there: they are what is evaluated
                return [], f"There is no comparison with random weights: {error.message}"
            if embeddings is None:
                return [], "There is no comparison with random weights: the target's network cannot be copied."
            by_network.append(embeddings)
        return by_network, None

    def _tasks(self, data: TrialData, auxiliary: Auxiliary) -> list[_Task]:
        """List the attributes with their records, and check them before anything is computed."""
        attributes = choose_attributes(data.dataset, self.attributes)
        known = select_known_records(data, auxiliary)
        splits = data.splits
        judged = splits.non_members if self.judged == "non-members" else np.setdiff1d(splits.members, known)
        judged = np.setdiff1d(judged, known)
        tasks, problems = [], []
        for name, attribute in attributes.items():
            task = _Task(name, attribute, find_annotated(attribute, known), find_annotated(attribute, judged))
            problem = explain_single_value(name, attribute, task.learned)
            if problem is None and len(task.judged) == 0:
                raise SplitError(
                    f"The attribute {name!r} is not annotated for any of the {self.judged} to evaluate on.",
                    hint="Lower --known." if self.judged == "members" else None,
                )
            if problem is not None:
                problems.append(problem)
            else:
                tasks.append(task)
        if problems and (self.attributes is not None or not tasks):
            raise ConfigurationError(problems[0], hint="Choose others with the attack's field `attributes`.")
        left_out = tuple(f"{problem} It is left out." for problem in problems)
        return [_Task(t.name, t.attribute, t.learned, t.judged, left_out) for t in tasks]

    def _learn(
        self, tasks: Sequence[_Task], everyone: NDArray[np.int64], inputs: Sequence[torch.Tensor], context: Context
    ) -> list[dict[str, _Inferred]]:
        """Train the networks; return posteriors of the values by attribute, for each kind of inputs."""
        size = len(tasks[0].attribute.names)
        # The same networks learn from each kind of inputs: what differs is what they see.
        trainings = [training for task in tasks for training in self._trainings(task, context.seed)]
        jobs = [(training, kind) for kind in range(len(inputs)) for training in trainings]
        networks = [build_attack_network(inputs[kind].shape[1], self.neurons, size, job.seed) for job, kind in jobs]
        labels = [torch.from_numpy(job.task.attribute.values[job.records]) for job, _ in jobs]
        train_together(
            networks,
            [(inputs[kind],) for _, kind in jobs],
            labels,
            EnsembleTraining(epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate),
            seeds=[job.seed for job, _ in jobs],
            weights=[weigh_values(values) for values in labels] if self.balanced else None,
            rows=[_rows(everyone, job.records) for job, _ in jobs],
            device=context.device,
            cache=context.cache,
            progress=context.progress,
        )
        made = [[(j, net) for (j, of), net in zip(jobs, networks, strict=True) if of == k] for k in range(len(inputs))]
        return [self._decide(tasks, everyone, values, part) for values, part in zip(inputs, made, strict=True)]

    def _decide(
        self,
        tasks: Sequence[_Task],
        everyone: NDArray[np.int64],
        inputs: torch.Tensor,
        made: Sequence[tuple[_Training, nn.Module]],
    ) -> dict[str, _Inferred]:
        """Predict the evaluated records of each attribute with trained networks, weighted by what they are worth."""
        inferred = {}
        for task in tasks:
            size = len(task.attribute.names)
            mine = [(job, network) for job, network in made if job.task is task]
            counts = np.bincount(task.attribute.values[task.learned], minlength=size)
            with np.errstate(divide="ignore"):
                frequent = np.log(counts / counts.sum())  # a value that no known record has is never predicted
            shift = frequent if self.balanced else np.where(counts > 0, 0.0, -np.inf)
            held = [
                (j.held_back, compute_logits(net, inputs[_rows(everyone, j.held_back)])) for j, net in mine if j.checks
            ]
            weight = weigh_network(held, task.attribute.values, frequent, shift)
            full = [
                compute_logits(net, inputs[_rows(everyone, task.judged)])
                for training, net in mine
                if not training.checks
            ]
            inferred[task.name] = _Inferred(
                weight, softmax(weigh_logits(np.mean(full, axis=0), weight, frequent, shift), axis=1)
            )
        return inferred

    def _trainings(self, task: _Task, seed: int) -> list[_Training]:
        """List the networks of an attribute: those for the prediction, and those for the check on held-back records."""
        trainings = [
            _Training(task, derive_seed(seed, f"attribute network {task.name}", number), task.learned)
            for number in range(self.repeats)
        ]
        count = len(task.learned)
        if count < _FOLDS * 2:
            return trainings
        order = make_generator(seed, f"attribute folds {task.name}")
        folds = np.array_split(task.learned[torch.randperm(count, generator=order).numpy()], _FOLDS)
        enough = min(_FOLDS, -(-_HELD_BACK // len(folds[0])))
        for number, fold in enumerate(folds[:enough]):
            rest = np.setdiff1d(task.learned, fold)
            trainings.append(
                _Training(task, derive_seed(seed, f"attribute check {task.name}", number), rest, np.sort(fold))
            )
        return trainings

    def _inferred(
        self,
        task: _Task,
        inferred: _Inferred,
        random: Sequence[_Inferred],
        pixels: _Inferred,
        data: TrialData,
        notes: tuple[str, ...],
    ) -> Inferred:
        values, labels = task.attribute.values, data.dataset.labels
        baseline = label_majority(values[task.learned], labels[task.learned], labels[task.judged])
        return Inferred(
            task.name,
            task.attribute.names,
            task.judged,
            values[task.judged],
            inferred.values(),
            baseline,
            labels[task.judged],
            (*task.notes, *task.unknown_values(), *inferred.notes(), *notes),
            np.stack([one.values() for one in random]) if random else np.empty((0, 0), dtype=np.int64),
            pixels.values(),
        )


@dataclass(frozen=True, eq=False)
class _Task:
    """One attribute: records to learn it from, and records to judge it on."""

    name: str
    attribute: Attribute
    learned: NDArray[np.int64]
    judged: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def unknown_values(self) -> tuple[str, ...]:
        """Return a note on values that occur in the evaluation but not in training."""
        values = self.attribute.values
        unknown = np.setdiff1d(values[self.judged], values[self.learned])
        if len(unknown) == 0:
            return ()
        names = ", ".join(repr(self.attribute.names[value]) for value in unknown[:3])
        count = int(np.isin(values[self.judged], unknown).sum())
        return (f"{count} evaluated records have a value ({names}) that no known record has.",)


@dataclass(frozen=True, eq=False)
class _Training:
    """One network: its attribute, its seed, the records that it learns from, and those that it is checked on."""

    task: _Task
    seed: int
    records: NDArray[np.int64]
    held_back: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def checks(self) -> bool:
        """Whether this network serves only for the check on held-back records."""
        return len(self.held_back) > 0


@dataclass(frozen=True, eq=False)
class _Inferred:
    """Posteriors of the evaluated records, N×V, and the weight of the network in them."""

    weight: float
    posteriors: NDArray[np.float64]

    def values(self) -> NDArray[np.int64]:
        """The likeliest value of each record, N."""
        return np.asarray(self.posteriors.argmax(axis=1), dtype=np.int64)

    def notes(self) -> tuple[str, ...]:
        """Return a note if the network was ignored."""
        if self.weight > 0:
            return ()
        return (
            "On held-back records, the network was no better than the frequencies of the values, so "
            "the most frequent value is predicted for all records.",
        )


def _rows(everyone: NDArray[np.int64], records: NDArray[np.int64]) -> torch.Tensor:
    """Return the positions of records among the sorted records with embeddings."""
    return torch.from_numpy(np.searchsorted(everyone, records))
