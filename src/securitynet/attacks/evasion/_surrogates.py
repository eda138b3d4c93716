"""Surrogates for transferable examples: given by reference, or trained on the adversary's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from securitynet.errors import ConfigurationError, SplitError
from securitynet.files import file_checksum
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.loading.load import load_target
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.randomness import derived_seed
from securitynet.records import Access, Auxiliary, Record, ThreatModel

STORE = "surrogates"
"""Cache folder of trained surrogates, shared with model stealing."""


class GivenSurrogate(Record):
    """A model that the adversary already has, such as a public or a stolen one.

    Attributes:
        model: Reference, such as ``arch:resnet18``; a plain string instead of a table is taken as the reference.
        weights: File of the weights; None for those of the library.
        checksum: SHA-256 of that file; it is filled in, so that the trial's id depends on the weights.
        normalize: Normalisation, as for a target.
        input_size: Input size, as for a target.
        head: Kind of output, as for a target.
    """

    model: str
    weights: Path | None = None
    checksum: str | None = None
    normalize: str | None = None
    input_size: int | None = Field(default=None, ge=1)
    head: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"model": values}
        if isinstance(values, dict) and values.get("weights") is not None:
            path = Path(values["weights"])
            if not path.is_file():
                raise ConfigurationError(f"The weights file {path} of a surrogate does not exist.")
            checksum = file_checksum(path)
            if values.get("checksum") not in (None, checksum):
                raise ConfigurationError(f"The weights in {path} do not match the stated checksum.")
            return {**values, "checksum": checksum}
        return values

    def load(self, data: TrialData, device: str) -> Target:
        """Load the model with white-box access.

        Raises:
            ConfigurationError: If the model gives outputs only.
            ModelError: If it cannot be found or read.
            TargetError: If its classes differ from those of the dataset.
        """
        surrogate = load_target(
            self.model,
            weights=self.weights,
            dataset=data.dataset,
            normalize=self.normalize,
            input_size=self.input_size,
            head=self.head,
            device=device,
        )
        if not surrogate.access.covers(Access.WHITE_BOX):
            raise ConfigurationError(
                f"{self.model} gives outputs only; making examples requires its gradients.",
                hint="Name a network, with its weights.",
            )
        return surrogate


def trained_surrogate(architecture: str, recipe: Recipe, data: TrialData, context: Context) -> Target:
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
    spec = surrogate_spec(architecture, recipe, data, context)

    def report_epoch(done: int) -> None:
        if context.progress:
            context.progress(done, recipe.epochs)

    return obtain_model(spec, kind=STORE, cache=context.cache, device=context.device, progress=report_epoch).target


def surrogate_spec(architecture: str, recipe: Recipe, data: TrialData, context: Context) -> ModelSpec:
    """Return the specification of the surrogate.

    Args:
        architecture: Architecture of the surrogate.
        recipe: Training recipe.
        data: Data of the trial.
        context: Seed, cache and device.

    Raises:
        SplitError: If the adversary holds too little data.
    """
    records = held_records(data, context.threat_model)
    return ModelSpec(
        data.dataset,
        records,
        data.dataset.labels[records],
        data.dataset.num_classes,
        architecture,
        recipe.model_copy(update={"seed": derived_seed(context.seed, "evasion surrogate")}),
    )


def held_records(data: TrialData, threat_model: ThreatModel | None) -> NDArray[np.int64]:
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
