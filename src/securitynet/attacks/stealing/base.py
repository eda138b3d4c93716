"""What stealing attacks share: their configuration, and how surrogates are trained and judged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.stealing import _interface, _judging
from securitynet.attacks.stealing._overlap import leave_out_queried
from securitynet.attacks.stealing._pool import Pool
from securitynet.attacks.stealing._stolen_models import StolenModels
from securitynet.datasets.base import ImageDataset
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.shadows.plan import FALLBACK_ARCHITECTURE, find_own_architecture
from securitynet.models.store.cached_model import ModelSpec, StoredModel, build_fresh_network, check_images
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.parallel import obtain_models
from securitynet.models.store.training_cost import check_training_cost
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe, change_recipe
from securitynet.models.training.trainable import find_architecture
from securitynet.randomness import derive_seed
from securitynet.records import Access, Auxiliary, ThreatModel

OWN = "own"
"""Stands for the architecture of the target itself, if known."""

STORE = "surrogates"
"""Folder of the surrogates in the model store."""

POOLS = tuple(
    ThreatModel(access=Access.BLACK_BOX, auxiliary=auxiliary)
    for auxiliary in (Auxiliary.PARTIAL, Auxiliary.SHADOW, Auxiliary.OUT_OF_DISTRIBUTION)
)

TargetOutputs = NDArray[np.float32] | NDArray[np.int64]
"""Posteriors, N×K, or predicted classes, N, if the interface returns nothing else."""


@dataclass(frozen=True, eq=False)
class QueryResult:
    """The images that the target was queried with, in order, and its outputs.

    Attributes:
        dataset: Dataset that contains the images.
        indices: Their records in it, N, distinct.
        outputs: Outputs of the target for them.
        classes: Number of classes, K.
        notes: Notes for the reader of the results.
    """

    dataset: ImageDataset
    indices: NDArray[np.int64]
    outputs: TargetOutputs
    classes: int
    notes: tuple[str, ...] = ()


class StealingAttack(Attack):
    """An attack that queries the target and trains a surrogate on its outputs, from fresh weights for each budget.

    Each image is queried once. The images of a smaller budget are a prefix of those of a larger one, so that a curve
    over budgets costs no more queries than its last point.

    Class attributes:
        protocol: Training recipe of the surrogates; ``recipe`` overrides some of its fields.
    """

    output: ClassVar[type[Output]] = StolenModels
    costs: ClassVar[str | None] = "trains a surrogate network"
    protocol: ClassVar[Recipe]

    architecture: str = Field(
        default="resnet18",
        description="Of the surrogate: a name from `list architectures`, a reference (timm:resnet18, "
        "python:FILE:FACTORY), or own: the target's, where it is known.",
    )
    recipe: dict[str, int | float | str | None] = Field(
        default_factory=dict, description="Fields of the training recipe to change (recipe.epochs=10)."
    )
    budgets: tuple[int, ...] = Field(
        default=(),
        description="Numbers of queries, each with a surrogate of its own ('100 1000'). Default: all there is.",
    )
    interface: str = Field(
        default=_interface.FULL,
        description="What the target's API returns: full posteriors, top-K of them, rounded-D to D digits, or labels.",
    )
    missing_classes: bool = Field(
        default=False, description="Go on where partial or shadow data lacks classes of the target."
    )
    transfer: int = Field(
        default=0,
        ge=0,
        description="Records whose adversarial examples, made on the surrogate, are tried on the target; 0 for none.",
    )
    epsilon: float = Field(default=8 / 255, gt=0, le=1, description="Largest change of a pixel in them, in [0, 1].")

    @field_validator("budgets", mode="before")
    @classmethod
    def _read_budgets(cls, value: object) -> object:
        if isinstance(value, str):
            value = value.replace("+", " ").replace(";", " ").split()
        return (value,) if isinstance(value, int) else value

    @field_validator("budgets")
    @classmethod
    def _check_budgets(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for budget in value:
            if budget < 2:
                raise ConfigurationError(
                    f"A budget of {budget} queries is too small to train a surrogate on.", hint="Give at least 2."
                )
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _settings_make_sense(self) -> StealingAttack:
        _interface.parse_interface(self.interface)
        adapt_recipe(self.protocol, self.recipe)
        return self

    @abstractmethod
    def query_images(self, target: Target, data: TrialData, context: Context) -> QueryResult:
        """Query the target with images and count each query.

        Args:
            target: The target behind the declared interface.
            data: Data of the trial.
            context: Seed, cache and query count.
        """

    def pictures(self, queried: QueryResult) -> NDArray[np.uint8]:
        """Return example images for `StolenModels.examples`; none by default."""
        return np.empty((0, 0, 1, 1, 1), dtype=np.uint8)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> StolenModels:
        check_images(data.dataset)
        interface = _interface.parse_interface(self.interface)
        seen = target if interface is None else target.through(interface)
        recipe = self.training(seen, context)
        architecture, size, notes = self.blueprint(target, data.trained)
        # Built once now, so that an architecture that cannot be built is reported before any query is spent.
        nothing = np.empty(0, dtype=np.int64)
        build_fresh_network(
            ModelSpec(data.dataset, nothing, nothing, data.dataset.num_classes, architecture, recipe, size)
        )
        queried = self.query_images(seen, data, context)
        check_variety(queried)
        budgets = self.budgets or (len(queried.indices),)
        specs = [
            ModelSpec(
                queried.dataset,
                queried.indices[:budget],
                queried.outputs[:budget],
                queried.classes,
                architecture,
                recipe,
                size,
            )
            for budget in budgets
        ]
        check_training_cost(specs, kind=STORE, cache=context.cache, device=context.device)
        models = obtain_models(specs, kind=STORE, cache=context.cache, device=context.device, progress=context.progress)
        return self._judge(target, data, context, budgets, models, queried, architecture, notes)

    def training(self, seen: Target, context: Context) -> Recipe:
        """Return the recipe of the surrogates.

        Raises:
            AccessDenied: If its loss compares posteriors and the interface returns labels only.
        """
        recipe = adapt_recipe(self.protocol, self.recipe)
        if seen.head == "labels" and recipe.loss != "cross-entropy":
            raise AccessDenied(
                f"The loss {recipe.loss} compares posteriors, and this interface returns labels only.",
                hint="Set recipe.loss=cross-entropy, which learns from labels too.",
            )
        # One seed for all budgets and losses: they start from the same weights, so that curves compare like with like.
        return recipe.model_copy(update={"seed": derive_seed(context.seed, "surrogate")})

    def blueprint(self, target: Target, trained: TargetRecord | None) -> tuple[str, int | None, tuple[str, ...]]:
        """Return the architecture of the surrogates, the image size they need (None: unchanged), and notes.

        Raises:
            UnknownName: If there is no such architecture.
        """
        if self.architecture != OWN:
            return find_architecture(self.architecture).reference, None, ()
        own = find_own_architecture(target, trained)
        if own is None:
            note = f"The target's architecture is not known; the surrogate is {FALLBACK_ARCHITECTURE}."
            return FALLBACK_ARCHITECTURE, None, (note,)
        size = target.preprocessing.input_size if trained is None else None
        return own.reference, None if size is None else max(size), ()

    def _judge(
        self,
        target: Target,
        data: TrialData,
        context: Context,
        budgets: Sequence[int],
        models: Sequence[StoredModel],
        queried: QueryResult,
        architecture: str,
        notes: tuple[str, ...],
    ) -> StolenModels:
        unseen = leave_out_queried(data.dataset, data.splits.non_members, (queried.dataset, queried.indices))
        judged = unseen.records
        view = _judging.view_as_auditor(target)
        truth = collect_signals(view, data.dataset, judged, cache=context.cache)
        own = None if truth.head == "labels" else truth.posteriors
        judgements = [
            _judging.compare_with_target(model.target, data.dataset, judged, own, context.cache) for model in models
        ]
        fooled, by_noise = _judging.try_transfer(
            view, truth, [model.target for model in models], data.dataset, self.transfer, self.epsilon, context.seed
        )
        return StolenModels(
            judged,
            truth.labels,
            truth.predictions,
            np.asarray(budgets, dtype=np.int64),
            np.stack([predictions for predictions, _, _ in judgements]),
            np.stack([confidence for _, confidence, _ in judgements]),
            np.stack([distances for _, _, distances in judgements]),
            tuple("" if m.weights is None else f"{STORE}/{m.key}/{m.weights.name}" for m in models),
            find_architecture(architecture).name,
            (*notes, *queried.notes),
            fooled,
            by_noise,
            self.pictures(queried),
            unseen.counts,
        )


def query_records(
    target: Target, pool: Pool, records: NDArray[np.int64], context: Context
) -> tuple[TargetOutputs, int]:
    """Query the target with new records of a pool; return its outputs and its number of classes.

    All of them count as queries, although outputs that an earlier run collected come from the cache.

    Args:
        target: The target behind the declared interface.
        pool: The pool that contains the records.
        records: Records that were not queried before, N.
        context: Cache and query count.
    """
    signals = collect_signals(
        target, pool.dataset, records, cache=context.cache, progress=context.progress, same_classes=pool.labelled
    )
    context.extra_queries.append(signals.queries)
    return _interface.choose_training_targets(signals), signals.outputs.shape[1]


def check_variety(queried: QueryResult) -> None:
    """Raise `ConfigurationError` if all outputs are the same class, so that there is nothing to learn."""
    classes = queried.outputs if queried.outputs.ndim == 1 else queried.outputs.argmax(axis=1)
    if queried.outputs.ndim == 1 and len(np.unique(classes)) < 2:
        raise ConfigurationError(
            f"The target predicted the same class for all {len(classes):,} queries, so nothing can be learned from its "
            "labels.",
            hint="Use more queries, or other images.",
        )


def adapt_recipe(protocol: Recipe, changes: Mapping[str, int | float | str | None]) -> Recipe:
    """Return the recipe of a protocol with some fields changed.

    Raises:
        ConfigurationError: If a field cannot be changed, does not exist, or its value is invalid.
    """
    if {"seed", "version"} & changes.keys():
        raise ConfigurationError(
            "The seed of surrogates is derived from the seed of the attack, and the version is fixed."
        )
    return change_recipe(protocol, changes, purpose="surrogates")
