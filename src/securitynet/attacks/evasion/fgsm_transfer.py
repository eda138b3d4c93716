"""FGSM by transfer: examples are made with the gradients of surrogates and then tried on the target.

SecurityNet, Appendix C: the adversary has no gradients of the target and computes the perturbation on an auxiliary
model, a ResNet-18 trained on the same data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._gradient import LOSSES, LossName, Signs, compute_signs, take_step
from securitynet.attacks.evasion._pieces import PieceStore
from securitynet.attacks.evasion._surrogates import STORE, GivenSurrogate, specify_surrogate, train_surrogate
from securitynet.attacks.evasion.base import EvasionAttack, Perturbed, Perturber
from securitynet.files import hash_stably
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.methods.shared_models import describe_shared_model
from securitynet.models.targets.input_gradients import InputGradients
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import Access, Auxiliary, ThreatModel

RECIPE = Recipe(epochs=30, batch_size=128, learning_rate=0.1, schedule="cosine", augment="crop-flip")
"""Default training recipe of a surrogate."""

EXAMPLES = "evasion-examples"
"""Cache folder for the signs of surrogates' gradients, one byte per pixel, which serve all targets."""


class FgsmTransfer(EvasionAttack):
    """FGSM on one or more surrogates; an image counts as evaded if the example of any surrogate evades the target.

    By default, one surrogate is trained on the members that the adversary knows or on shadow data. The signs of its
    gradients are cached and provide the examples for all epsilons and all targets.

    Attributes:
        surrogates: Models to make examples on, instead of a trained one.
        architecture: Architecture of the trained surrogate.
        recipe: Training recipe of the surrogate; omitted fields are those of `RECIPE`.
        loss: Loss whose gradient is followed.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW),
    )
    costs: ClassVar[str | None] = "trains a ResNet-18 on the adversary's data, unless surrogates are given"

    surrogates: tuple[GivenSurrogate, ...] = Field(
        default=(), description="Models to make examples on: references, or tables with model and weights."
    )
    architecture: str = Field(default="resnet18", description="Architecture of a surrogate that is trained.")
    recipe: Recipe = Field(default=RECIPE, description="How it is trained.")
    loss: LossName = Field(default="cross-entropy", description="Loss whose gradient is followed.")

    @field_validator("recipe", mode="before")
    @classmethod
    def _over_the_default(cls, value: Any) -> Any:
        return {**RECIPE.model_dump(), **value} if isinstance(value, dict) else value

    @field_validator("surrogates", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, dict, GivenSurrogate)) else value

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """List the surrogate; it does not depend on the target, so its examples serve all targets."""
        if self.surrogates:
            return ()
        spec = specify_surrogate(self.architecture, self.recipe, data, context)
        return [describe_shared_model(spec, STORE, "the surrogate for transfer", context)]

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        models = [given.load(data, context.device) for given in self.surrogates]
        names = [given.model for given in self.surrogates]
        if not models:
            models = [train_surrogate(self.architecture, self.recipe, data, context)]
            names = [f"Examples are made on {self.architecture}, trained on the adversary's data."]
        else:
            names = [f"Examples are made on {name}." for name in names]
        makers = [_Maker(model, self.loss, data, context) for model in models]

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            return _perturbed([maker.signs(batch) for maker in makers], batch, self.epsilons)

        several = f"An image counts as evaded if the example of any of {len(models)} surrogates evades the target."
        notes = (several,) if len(models) > 1 else tuple(names)
        identity = hash_stably([maker.key for maker in makers])
        return Perturber(perturb, alternatives=tuple(names), identity=identity, notes=notes)


class _Maker:
    """Computes the signs of the gradients of one surrogate, once for each batch."""

    def __init__(self, surrogate: Target, loss: LossName, data: TrialData, context: Context) -> None:
        self._surrogate = surrogate
        self._loss = loss
        self._take: InputGradients | None = None
        self.key = hash_stably(
            {
                "version": 2,  # 2: log-odds for confident images
                "surrogate": surrogate.identity.model_dump(mode="json", exclude={"reference"}),
                "precision": surrogate.precision,
                "dataset": data.dataset.fingerprint,
                "loss": loss,
            }
        )
        self._store = PieceStore(None if context.cache is None else context.cache / EXAMPLES / self.key)

    def signs(self, batch: Batch) -> Signs:
        name = hashlib.sha256(batch.indices.astype("<i8").tobytes()).hexdigest()[:32]
        held = self._store.read(name)
        if held is not None:
            return Signs(torch.from_numpy(held["signs"]).float(), held["vanished"], held["predictions"])
        if self._take is None:
            self._take = InputGradients(self._surrogate, loss=LOSSES[self._loss])
        gradient_signs = compute_signs(self._take, batch.images, batch.labels)
        as_bytes = gradient_signs.signs.to(torch.int8).numpy()
        self._store.write(
            name, {"signs": as_bytes, "vanished": gradient_signs.vanished, "predictions": gradient_signs.predictions}
        )
        return gradient_signs


def _perturbed(gradient_signs: Sequence[Signs], batch: Batch, epsilons: Sequence[float]) -> Perturbed:
    examples = [
        torch.stack([take_step(batch.images, own.signs, epsilon) for epsilon in epsilons]) for own in gradient_signs
    ]
    return Perturbed(torch.stack(examples), surrogate=np.stack([own.predictions for own in gradient_signs]))
