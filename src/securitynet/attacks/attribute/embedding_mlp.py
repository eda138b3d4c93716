"""Attribute inference from embeddings: a 2-layer network learns an attribute from the second-to-last layer's output.

ML-Doctor, sections 3.3 and 5.2 (after Song and Shmatikov, 2020): cross-entropy, 50 epochs of Adam at 1e-3 on the known
part of the training set, or on the shadow-train part. The width of the hidden layer is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy.special import softmax
from torch import nn
from typing_extensions import override

from securitynet.attacks.attribute._cases import AttributeTask, NetworkTraining, PreparedAttributes
from securitynet.attacks.attribute._controls import (
    ByAttribute,
    InferredValues,
    identify_network,
    make_random_networks,
    obtain_controls,
)
from securitynet.attacks.attribute._embedding_networks import (
    EmbeddingScale,
    build_attack_network,
    compute_logits,
    weigh_logits,
    weigh_network,
    weigh_values,
)
from securitynet.attacks.attribute._random_network import take_pixels
from securitynet.attacks.attribute.base import (
    Inferred,
    InferredAttributes,
    choose_attributes,
    explain_single_value,
    find_annotated,
    select_known_records,
)
from securitynet.attacks.base import Attack
from securitynet.errors import ConfigurationError, SecurityNetError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics.attribute import label_majority
from securitynet.models.targets.signals import collect_embeddings
from securitynet.models.targets.target import Target
from securitynet.models.training.ensembles import EnsembleTraining, train_together
from securitynet.randomness import derive_seed, make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

_FOLDS = 5
_HELD_BACK = 1000
"""Number of records to hold back, fold by fold, for the weight of the networks; all records if there are fewer."""

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
    exact_together: ClassVar[bool] = True
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
        return self.run_together([(target, data, context)])[0]

    @override
    def run_together(self, cases: Sequence[tuple[Target, TrialData, Context]]) -> list[InferredAttributes]:
        prepared = [self._prepare(*case) for case in cases]
        groups: dict[str, list[PreparedAttributes]] = {}
        for case in prepared:  # only networks of one shape, with the same records, can be trained together
            groups.setdefault(case.group, []).append(case)
        own: dict[PreparedAttributes, ByAttribute] = {}
        for group in groups.values():
            first = group[0]
            features = [case.embeddings for case in group]
            own.update(zip(group, self._infer_all(first.tasks, first.everyone, features, first.context), strict=True))
        return [self._conclude(case, own[case]) for case in prepared]

    def _prepare(self, target: Target, data: TrialData, context: Context) -> PreparedAttributes:
        """Collect what the networks learn from, and the controls."""
        auxiliary = context.threat_model.auxiliary if context.threat_model else self.threat_models[0].auxiliary
        tasks = self._tasks(data, auxiliary)
        everyone = np.unique(np.concatenate([part for task in tasks for part in (task.learned, task.judged)]))
        target.require(Access.WHITE_BOX, "embeddings")
        embeddings = context.embeddings(target, data.dataset, everyone, layer=self.layer)
        random, pixels, reason = self._control(target, tasks, everyone, data, context)
        notes = () if reason is None else (reason,)
        return PreparedAttributes(tasks, everyone, embeddings.values, random, pixels, notes, data, context)

    def _control(
        self,
        target: Target,
        tasks: Sequence[AttributeTask],
        everyone: NDArray[np.int64],
        data: TrialData,
        context: Context,
    ) -> tuple[Sequence[ByAttribute], ByAttribute, str | None]:
        """What random networks and pixels let the adversary infer, and why there are no networks, if there are none."""
        networks, reason = make_random_networks(target, context.seed)
        try:
            known = [identify_network(network, data, everyone, self.layer) for network in networks]
        except SecurityNetError as error:
            networks, known, reason = [], [], f"There is no comparison with random weights: {error.message}"
        identity = {
            "method": self.model_dump(mode="json"),
            "seed": context.seed,
            "dataset": data.dataset.fingerprint,
            "attributes": [task.digest() for task in tasks],
            "networks": known,
        }

        def compute() -> list[ByAttribute]:
            embeddings = [
                collect_embeddings(
                    network, data.dataset, everyone, layer=self.layer, cache=context.cache, progress=context.progress
                ).values
                for network in networks
            ]
            pixels = self._infer(tasks, everyone, [take_pixels(data.dataset, everyone)], context)
            return [*self._infer_all(tasks, everyone, embeddings, context), *pixels]

        names = [task.name for task in tasks]
        *random, pixels = obtain_controls(identity, names, len(networks) + 1, context, compute)
        return random, pixels, reason

    def _conclude(self, case: PreparedAttributes, own: ByAttribute) -> InferredAttributes:
        return InferredAttributes(
            tuple(
                self._inferred(
                    task,
                    own[task.name],
                    [network[task.name] for network in case.random],
                    case.pixels[task.name],
                    case.data,
                    case.notes,
                )
                for task in case.tasks
            )
        )

    def _infer_all(
        self,
        tasks: Sequence[AttributeTask],
        everyone: NDArray[np.int64],
        features: Sequence[NDArray[np.float32]],
        context: Context,
    ) -> list[ByAttribute]:
        """As `_infer`, for as many kinds of features at once as memory allows, which takes little longer than one."""
        if not features:
            return []
        size = max(1, _TOGETHER_BYTES // max(1, features[0].nbytes))
        return [
            inferred
            for start in range(0, len(features), size)
            for inferred in self._infer(tasks, everyone, features[start : start + size], context)
        ]

    def _infer(
        self,
        tasks: Sequence[AttributeTask],
        everyone: NDArray[np.int64],
        features: Sequence[NDArray[np.float32]],
        context: Context,
    ) -> list[dict[str, InferredValues]]:
        """Infer each attribute, by its name, from each of several kinds of features of all records."""
        learned = np.isin(everyone, np.concatenate([task.learned for task in tasks]))
        inputs = [EmbeddingScale(values[learned])(values) for values in features]
        inferred: list[dict[str, InferredValues]] = [{} for _ in inputs]
        for size in sorted({len(task.attribute.names) for task in tasks}):
            group = [task for task in tasks if len(task.attribute.names) == size]
            for whole, part in zip(inferred, self._learn(group, everyone, inputs, context), strict=True):
                whole.update(part)
        return inferred

    def _tasks(self, data: TrialData, auxiliary: Auxiliary) -> list[AttributeTask]:
        """List the attributes with their records, and check them before anything is computed."""
        attributes = choose_attributes(data.dataset, self.attributes)
        known = select_known_records(data, auxiliary)
        splits = data.splits
        judged = splits.non_members if self.judged == "non-members" else np.setdiff1d(splits.members, known)
        judged = np.setdiff1d(judged, known)
        tasks, problems = [], []
        for name, attribute in attributes.items():
            task = AttributeTask(name, attribute, find_annotated(attribute, known), find_annotated(attribute, judged))
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
        return [AttributeTask(t.name, t.attribute, t.learned, t.judged, left_out) for t in tasks]

    def _learn(
        self,
        tasks: Sequence[AttributeTask],
        everyone: NDArray[np.int64],
        inputs: Sequence[torch.Tensor],
        context: Context,
    ) -> list[dict[str, InferredValues]]:
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
        tasks: Sequence[AttributeTask],
        everyone: NDArray[np.int64],
        inputs: torch.Tensor,
        made: Sequence[tuple[NetworkTraining, nn.Module]],
    ) -> dict[str, InferredValues]:
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
            inferred[task.name] = InferredValues(
                weight, softmax(weigh_logits(np.mean(full, axis=0), weight, frequent, shift), axis=1)
            )
        return inferred

    def _trainings(self, task: AttributeTask, seed: int) -> list[NetworkTraining]:
        """List the networks of an attribute: those for the prediction, and those for the check on held-back records."""
        trainings = [
            NetworkTraining(task, derive_seed(seed, f"attribute network {task.name}", number), task.learned)
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
                NetworkTraining(task, derive_seed(seed, f"attribute check {task.name}", number), rest, np.sort(fold))
            )
        return trainings

    def _inferred(
        self,
        task: AttributeTask,
        inferred: InferredValues,
        random: Sequence[InferredValues],
        pixels: InferredValues,
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


def _rows(everyone: NDArray[np.int64], records: NDArray[np.int64]) -> torch.Tensor:
    """Return the positions of records among the sorted records with embeddings."""
    return torch.from_numpy(np.searchsorted(everyone, records))
