"""Targeted PGD: small steps towards a class that the adversary chose, in L∞ or L2.

Madry et al., "Towards deep learning models resistant to adversarial attacks" (2018), section 2.1, with the loss of the
chosen class made small; Carlini and Wagner, "Towards evaluating the robustness of neural networks" (2017), section
VI.A, for the choices of the class.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion.base import Perturber
from securitynet.attacks.evasion.pgd import Pgd
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.input_gradients import InputGradients
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed


class PgdTargeted(Pgd):
    """Reports how many images reach their class (``targeted-success``), beside those that are misclassified at all.

    Attributes:
        goal: The class to reach: a random other one for each image, or the one with the lowest logit.
    """

    targeted: ClassVar[bool] = True

    samples: int = Field(default=200, ge=1, description="Number of non-members to perturb.")
    goal: Literal["random", "least-likely"] = Field(default="random", description="Class that an image is to get.")

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        if data.dataset.num_classes < 2:
            raise ConfigurationError("A targeted attack needs two classes or more.")
        return super().prepare(target, data, context)

    @override
    def goals(self, take: InputGradients, batch: Batch, classes: int, seed: int) -> torch.Tensor:
        if self.goal == "least-likely":
            logits = take.logits(batch.images)
            return logits.scatter(1, batch.labels[:, None], torch.inf).argmin(dim=1)
        # The class depends on the record alone, not on the batch that it happens to be in.
        shifts = [1 + derive_seed(seed, "targeted class", int(index)) % (classes - 1) for index in batch.indices]
        return (batch.labels + torch.tensor(shifts)) % classes
