"""Training towards a mean loss above zero: RelaxLoss (Chen, Yu and Fritz, ICLR 2022, algorithm 1)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional

from securitynet.errors import ConfigurationError
from securitynet.models.training.fit import History
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.step import Procedure, Run
from securitynet.models.training.training_defense import Fitting, TrainingDefense


class RelaxLoss(TrainingDefense):
    """Batches with a loss of ``alpha`` or more are learnt as ever; others are unlearnt, or their posteriors flattened.

    In every second epoch a batch with a lower loss takes a step up the loss. In the others, records keep the posterior
    of their class as it is, and share the rest evenly among the other classes (section 4.2). By ``flatten=wrong`` only
    records that are misclassified do, and the others step up, as the paper's appendix has it for images; that protects
    about as well and costs more accuracy on small data.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"alpha": 0.5}, {"alpha": 1.0})

    alpha: float = Field(default=0.5, gt=0, allow_inf_nan=False, description="Mean loss to train towards, in nats.")
    flatten: Literal["all", "wrong"] = Field(
        default="all", description="Whose posteriors are flattened: of all records, or of those that are misclassified."
    )

    def check(self, architecture: str, shape: tuple[int, int, int], records: int, recipe: Recipe) -> None:
        """See `TrainingDefense.check`."""
        if recipe.loss != "cross-entropy" or recipe.label_smoothing:
            raise ConfigurationError("RelaxLoss is about cross-entropy with labels as they are.")
        classes = shape[0]
        if self.alpha >= math.log(classes):
            raise ConfigurationError(
                f"An alpha of {self.alpha:g} is the loss of a model that knows nothing: guessing among {classes} "
                f"classes has {math.log(classes):.2f}.",
                hint="Set relaxloss.alpha well below that.",
            )

    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        """See `TrainingDefense.fit`."""
        return fitting.fit(Relaxing(self.alpha, self.flatten)), {}


class Relaxing(Procedure):
    """The steps of RelaxLoss."""

    def __init__(self, alpha: float, flatten: Literal["all", "wrong"] = "all") -> None:
        self.alpha = alpha
        self.flatten = flatten
        self._up = True

    def identity(self) -> dict[str, Any]:
        """See `Procedure.identity`."""
        return {"procedure": "relaxloss", "version": 2, "alpha": self.alpha, "flatten": self.flatten}

    def batches(self, run: Run, epoch: int) -> list[torch.Tensor]:
        """See `Procedure.batches`."""
        self._up = epoch % 2 == 0
        return super().batches(run, epoch)

    def loss(
        self, run: Run, logits: torch.Tensor, targets: torch.Tensor, batch: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """See `Procedure.loss`."""
        return relaxed(logits, targets, self.alpha, up=self._up, flatten=self.flatten)


def relaxed(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, *, up: bool, flatten: Literal["all", "wrong"] = "all"
) -> torch.Tensor:
    """The loss whose gradient RelaxLoss follows downwards on a batch, a scalar.

    Args:
        logits: N×K.
        labels: N int64.
        alpha: The mean loss that is wanted.
        up: Whether a batch with a lower loss steps up; its posteriors are flattened otherwise.
        flatten: Whose posteriors.
    """
    each = functional.cross_entropy(logits, labels, reduction="none")
    plain = each.mean()
    if plain >= alpha:
        return plain
    if up:
        return -plain
    with torch.no_grad():  # wanted posteriors are constants, or they would be sharpened again
        hard = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        own = logits.softmax(dim=1).gather(1, labels.unsqueeze(1))
        wanted = hard * own + (1 - hard) * (1 - own) / (logits.shape[1] - 1)
    flattened = functional.cross_entropy(logits, wanted, reduction="none")
    if flatten == "wrong":
        flattened = torch.where(logits.argmax(dim=1) == labels, -each, flattened)
    return flattened.mean()
