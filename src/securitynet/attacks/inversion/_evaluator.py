"""The evaluation classifier: a second network that judges reconstructions, trained on data that the target never saw.

Zhang et al. (2020), section 4.1: an attack must not be judged by the network that it optimised against. The classifier
belongs to the auditor, so it may use records that no adversary has. It is trained on the shadow-test part and the
target's non-members, which neither the target nor the adversary's GAN (shadow-train) has seen.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from securitynet.datasets.ordering import shuffle
from securitynet.errors import SplitError
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.shared_models import describe_shared_model
from securitynet.models.shadows import ShadowTraining, resolve_training
from securitynet.models.shadows.store import specify_shadow, train_shadow
from securitynet.models.store.cached_model import ModelSpec
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.randomness import derive_seed

logger = logging.getLogger(__name__)

ARCHITECTURES = ("cifar-resnet20", "vgg11")
"""Architectures of the evaluation classifier by default: the first one that is not the target's is used."""

RECIPE: dict[str, int | float | str | None] = {
    "epochs": 20,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "weight_decay": 0.0,
}
"""Recipe of the evaluation classifier; the other fields keep the defaults of `Recipe`."""

_HELD_OUT = 0.2


class EvaluatorTraining(ShadowTraining):
    """How the evaluation classifier is trained.

    Attributes:
        architecture: A name in `securitynet.models.architectures.ARCHITECTURES`; None for the first of `ARCHITECTURES`
            that is not the target's.
        recipe: Fields of the recipe to change; the others are those of `RECIPE`.
    """

    recipe: dict[str, int | float | str | None] = Field(
        default_factory=lambda: dict(RECIPE), description="Fields of its recipe to change."
    )


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A trained evaluation classifier.

    Attributes:
        target: The network, in evaluation mode.
        unseen: Real records that neither this classifier nor the target was trained on, sorted.
        recognised: Number of these records that it classifies correctly, and number of these records.
        commonest: Number of these records that belong to their most frequent class.
    """

    target: Target
    unseen: NDArray[np.int64]
    recognised: tuple[int, int]
    commonest: int


def describe_evaluator(target: Target, data: TrialData, training: EvaluatorTraining, context: Context) -> SharedWork:
    """Describe the training of the evaluation classifier as shared work.

    Args:
        target: The target.
        data: Data of the trial.
        training: How the classifier is trained.
        context: Seed, cache and device.
    """
    spec, _ = _evaluator_spec(target, data, training, context)
    return describe_shared_model(spec, "shadows", "the evaluation classifier", context)


def obtain_evaluator(target: Target, data: TrialData, training: EvaluatorTraining, context: Context) -> Evaluator:
    """Train the evaluation classifier, or load it from the store of shadow models.

    Args:
        target: The target.
        data: Data of the trial.
        training: How the classifier is trained.
        context: Seed, cache and device.

    Raises:
        SplitError: If there are too few records that the target has not seen.
        SecurityNetError: See `securitynet.models.shadows.obtain_shadow`.
    """
    spec, unseen = _evaluator_spec(target, data, training, context)
    progress = context.progress
    shadow = train_shadow(
        spec,
        cache=context.cache,
        device=context.device,
        progress=(lambda done: progress(done, spec.recipe.epochs)) if progress else None,
    )
    signals = collect_signals(shadow.target, data.dataset, unseen, cache=context.cache)
    recognised = int(signals.correct.sum()), len(unseen)
    logger.info("The evaluation classifier recognises %d of %d real images.", *recognised)
    return Evaluator(shadow.target, unseen, recognised, int(np.bincount(data.dataset.labels[unseen]).max()))


def _evaluator_spec(
    target: Target, data: TrialData, training: EvaluatorTraining, context: Context
) -> tuple[ModelSpec, NDArray[np.int64]]:
    """Return the specification of the evaluation classifier, and the records left out of its training, sorted."""
    splits, dataset = data.splits, data.dataset
    seen = np.union1d(splits.members, splits.shadow_train)
    pool = np.setdiff1d(np.union1d(splits.non_members, splits.shadow_test), seen)
    aside = round(len(pool) * _HELD_OUT)
    if aside < 1 or len(pool) - aside < 2:
        raise SplitError(
            f"The {splits.name} split leaves {len(pool)} records that the target has not seen, too few to train the "
            "evaluation classifier on.",
            hint="Use a dataset with more test records.",
        )
    order = pool[shuffle(len(pool), "evaluation classifier", context.seed)]
    unseen, trained_on = np.sort(order[:aside]), np.sort(order[aside:])
    resolved = resolve_training(_named(training, target, data), target, None)
    seed = derive_seed(context.seed, "evaluation classifier")
    recipe = Recipe(**{**resolved.recipe.model_dump(), "seed": seed})
    return specify_shadow(dataset, trained_on, resolved.architecture, recipe), unseen


def _named(training: EvaluatorTraining, target: Target, data: TrialData) -> EvaluatorTraining:
    """Fill in the architecture and the fields of the recipe that the user did not set."""
    scheme, _, name = target.reference.partition(":")
    own = data.trained.architecture if data.trained else name if scheme == "arch" else None
    return training.model_copy(
        update={
            "architecture": training.architecture or next(name for name in ARCHITECTURES if name != own),
            "recipe": training.recipe if "recipe" in training.recipe else {**RECIPE, **training.recipe},
        }
    )
