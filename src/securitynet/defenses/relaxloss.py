"""Training towards a mean loss above zero: RelaxLoss (Chen, Yu and Fritz, ICLR 2022, algorithm 1)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional
from typing_extensions import override

from securitynet.errors import ConfigurationError
from securitynet.models.training.fit import History
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.step import Procedure, Run
from securitynet.models.training.trainable import NetworkShape
from securitynet.models.training.training_defense import Fitting, TrainingDefense


class RelaxLoss(TrainingDefense):
    """Keeps the mean loss near ``alpha``: batches with a lower loss take a gradient ascent step or are flattened.

    In even epochs, a batch whose loss is below ``alpha`` takes a step that increases its loss. In odd epochs, its
    records keep the posterior of their class, and the rest is spread evenly over the other classes (section 4.2). With
    ``flatten=wrong``, only misclassified records are flattened and the others take the ascent step, as in the paper's
    appendix for images; this defends about as well, but costs more accuracy on small datasets.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"alpha": 0.5}, {"alpha": 1.0})

    alpha: float = Field(default=0.5, gt=0, allow_inf_nan=False, description="Target of the mean loss, in nats.")
    flatten: Literal["all", "wrong"] = Field(
        default="all", description="Records whose posteriors are flattened: all, or only misclassified ones."
    )

    @override
    def check(self, architecture: str, shape: NetworkShape, records: int, recipe: Recipe) -> None:
        if recipe.loss != "cross-entropy" or recipe.label_smoothing:
            raise ConfigurationError("RelaxLoss needs the cross-entropy loss without label smoothing.")
        classes = shape[0]
        if self.alpha >= math.log(classes):
            raise ConfigurationError(
                f"An alpha of {self.alpha:g} is no better than guessing: a uniform guess among {classes} "
                f"classes has a loss of {math.log(classes):.2f}.",
                hint="Set relaxloss.alpha well below that.",
            )

    @override
    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        return fitting.fit(Relaxing(self.alpha, self.flatten)), {}


class Relaxing(Procedure):
    """The steps of RelaxLoss."""

    def __init__(self, alpha: float, flatten: Literal["all", "wrong"] = "all") -> None:
        self.alpha = alpha
        self.flatten = flatten
        self._up = True

    @override
    def identity(self) -> dict[str, Any]:
        return {"procedure": "relaxloss", "version": 2, "alpha": self.alpha, "flatten": self.flatten}

    @override
    def batches(self, run: Run, epoch: int) -> list[torch.Tensor]:
        self._up = epoch % 2 == 0
        return super().batches(run, epoch)

    @override
    def loss(
        self, run: Run, logits: torch.Tensor, targets: torch.Tensor, batch: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        return compute_relaxed_loss(logits, targets, self.alpha, up=self._up, flatten=self.flatten)


def compute_relaxed_loss(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, *, up: bool, flatten: Literal["all", "wrong"] = "all"
) -> torch.Tensor:
    """Compute the scalar that RelaxLoss minimises on a batch.

    Args:
        logits: N×K.
        labels: N int64.
        alpha: Target of the mean loss, in nats.
        up: Whether a batch below the target takes an ascent step; otherwise its posteriors are flattened.
        flatten: Records whose posteriors are flattened.
    """
    each = functional.cross_entropy(logits, labels, reduction="none")
    plain = each.mean()
    if plain >= alpha:
        return plain
    if up:
        return -plain
    with torch.no_grad():  # the flattened posteriors are constants, or they would be sharpened again
        hard = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        own = logits.softmax(dim=1).gather(1, labels.unsqueeze(1))
        wanted = hard * own + (1 - hard) * (1 - own) / (logits.shape[1] - 1)
    flattened = functional.cross_entropy(logits, wanted, reduction="none")
    if flatten == "wrong":
        flattened = torch.where(logits.argmax(dim=1) == labels, -each, flattened)
    return flattened.mean()
