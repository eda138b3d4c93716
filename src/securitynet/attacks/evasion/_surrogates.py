"""Surrogates on which transferable examples are made: given by reference, or trained on what the adversary holds."""

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
"""Folder of the cache in which trained surrogates are kept; those of model stealing lie there too."""


class GivenSurrogate(Record):
    """A model that the adversary has already: a public one, or one that was stolen.

    Attributes:
        model: Reference, such as ``arch:resnet18``; a text in place of this record is taken for it.
        weights: File of weights; the library's own if None.
        checksum: SHA-256 of that file, filled in: the trial is about these weights and no others.
        normalize: As for a target.
        input_size: As for a target.
        head: As for a target.
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
                raise ConfigurationError(f"There is no file {path} with weights of a surrogate.")
            found = file_checksum(path)
            if values.get("checksum") not in (None, found):
                raise ConfigurationError(f"The weights in {path} are not those of the stated checksum.")
            return {**values, "checksum": found}
        return values

    def load(self, data: TrialData, device: str) -> Target:
        """The model under white-box access.

        Raises:
            ConfigurationError: If it only answers.
            ModelError: If it cannot be found or read.
            TargetError: If it has other classes than the dataset.
        """
        found = load_target(
            self.model,
            weights=self.weights,
            dataset=data.dataset,
            normalize=self.normalize,
            input_size=self.input_size,
            head=self.head,
            device=device,
        )
        if not found.access.covers(Access.WHITE_BOX):
            raise ConfigurationError(
                f"{self.model} only answers; examples are made with gradients, which it does not give.",
                hint="Name a network, with its weights.",
            )
        return found


def trained_surrogate(architecture: str, recipe: Recipe, data: TrialData, context: Context) -> Target:
    """A model trained on what the adversary holds: from the store if it is there, else trained now.

    Raises:
        SplitError: If the adversary holds too little.
        UnknownName: If there is no such architecture.
        ModelError: If it cannot be built for the images or trained on them.
    """
    spec = surrogate_spec(architecture, recipe, data, context)

    def told(done: int) -> None:
        if context.progress:
            context.progress(done, recipe.epochs)

    return obtain_model(spec, kind=STORE, cache=context.cache, device=context.device, progress=told).target


def surrogate_spec(architecture: str, recipe: Recipe, data: TrialData, context: Context) -> ModelSpec:
    """What is trained as a surrogate. Raises `SplitError` if the adversary holds too little."""
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
    """The records that the adversary trains a surrogate on: shadow data, or the members that are known.

    Raises:
        SplitError: If there are fewer than two.
    """
    shadow = threat_model is not None and threat_model.auxiliary is Auxiliary.SHADOW
    records = data.splits.shadow_train if shadow else data.splits.known_members
    if len(records) < 2:
        raise SplitError(
            "The adversary holds too few records to train a surrogate on.",
            hint="Let them know more of the training set (--known), or name surrogates.",
        )
    return records
