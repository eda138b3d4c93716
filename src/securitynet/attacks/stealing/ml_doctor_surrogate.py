"""ML-Doctor: a network of the target's own architecture learns its posteriors by squared error.

ML-Doctor (Liu et al., 2022), sections 3.4 and 5.2, after Tramèr et al. (2016): 50 epochs of SGD at a learning rate of
0.01 with momentum 0.9. The error is one between posteriors; it is summed over classes (see `docs/stealing.md`).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from securitynet.attacks.stealing._pooled import PlainStealing
from securitynet.attacks.stealing.base import OWN, POOLS
from securitynet.models.training.recipe import Recipe
from securitynet.records import ThreatModel


class MLDoctorSurrogate(PlainStealing):
    """Trains with the squared error between posteriors."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = POOLS[:2]
    trains_like_target: ClassVar[bool] = True
    protocol: ClassVar[Recipe] = Recipe(epochs=50, learning_rate=1e-2, schedule="constant", loss="mse")

    architecture: str = Field(
        default=OWN,
        description="Of the surrogate: own (the target's, where it is known), a name from `list architectures`, or a "
        "reference (timm:resnet18, python:FILE:FACTORY).",
    )
