"""Surrogates for transferable examples: given by reference, or trained on the adversary's data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks._given_models import GivenModel
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.randomness import derive_seed
from securitynet.records import Access, Auxiliary, ThreatModel

STORE = "surrogates"
"""Cache folder of trained surrogates, shared with model stealing."""


class GivenSurrogate(GivenModel):
    """A model to make examples on, in place of one that is trained."""

    @override
    def load(self, data: TrialData, device: str) -> Target:
        """Load the model with white-box access.

        Raises:
            ConfigurationError: If the model gives outputs only.
            ModelError: If it cannot be found or read.
            TargetError: If its classes differ from those of the dataset.
        """
        surrogate = super().load(data, device)
        if not surrogate.access.covers(Access.WHITE_BOX):
            raise ConfigurationError(
                f"{self.model} gives outputs only; making examples requires its gradients.",
                hint="Name a network, with its weights.",
            )
        return surrogate


def train_surrogate(architecture: str, recipe: Recipe, data: TrialData, context: Context) -> Target:
    """Train a surrogate on the adversary's data, or load it from the store.

    Args:
        architecture: Architecture of the surrogate.
        recipe: Training recipe.
        data: Data of the trial.
        context: Seed, cache and device.

    Raises:
        SplitError: If the adversary holds too little.
        UnknownName: If there is no such architecture.
        ModelError: If it cannot be built for the images or trained on them.
    """
    spec = specify_surrogate(architecture, recipe, data, context)

    def report_epoch(done: int) -> None:
        if context.progress:
            context.progress(done, recipe.epochs)

    return obtain_model(spec, kind=STORE, cache=context.cache, device=context.device, progress=report_epoch).target


def specify_surrogate(architecture: str, recipe: Recipe, data: TrialData, context: Context) -> ModelSpec:
    """Return the specification of the surrogate.

    Args:
        architecture: Architecture of the surrogate.
        recipe: Training recipe.
        data: Data of the trial.
        context: Seed, cache and device.

    Raises:
        SplitError: If the adversary holds too little data.
    """
    records = choose_surrogate_records(data, context.threat_model)
    return ModelSpec(
        data.dataset,
        records,
        data.dataset.labels[records],
        data.dataset.num_classes,
        architecture,
        recipe.model_copy(update={"seed": derive_seed(context.seed, "evasion surrogate")}),
    )


def choose_surrogate_records(data: TrialData, threat_model: ThreatModel | None) -> NDArray[np.int64]:
    """Return the records that the adversary trains a surrogate on: shadow data, or the known members.

    Raises:
        SplitError: If there are fewer than two.
    """
    shadow = threat_model is not None and threat_model.auxiliary is Auxiliary.SHADOW
    records = data.splits.shadow_train if shadow else data.splits.known_members
    if len(records) < 2:
        raise SplitError(
            "The adversary holds too few records to train a surrogate on.",
            hint="Let the adversary know more of the training set (--known), or name surrogates.",
        )
    return records
