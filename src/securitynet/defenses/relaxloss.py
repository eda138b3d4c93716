"""Training towards a mean loss above zero: RelaxLoss (Chen, Yu and Fritz, ICLR 2022, algorithm 1)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch.nn import functional

from securitynet.defenses.base import TrainingDefense
from securitynet.errors import ConfigurationError
from securitynet.models.protection import Fitting
from securitynet.models.recipe import Recipe
from securitynet.models.trainer.procedure import Procedure, Run
from securitynet.models.training import History


class RelaxLoss(TrainingDefense):
    """Batches with a loss above ``alpha`` are learnt as ever; others are unlearnt, or have their posteriors flattened.

    In every second epoch a batch with a lower loss takes a step up the loss. In the others, records that are classified
    correctly keep the posterior of their class as it is, and share the rest evenly among the other classes; those that
    are not are learnt as ever.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"alpha": 0.3}, {"alpha": 1.0})

    alpha: float = Field(default=0.5, gt=0, allow_inf_nan=False, description="Mean loss to train towards, in nats.")

    def check(self, architecture: str, shape: tuple[int, int, int], records: int, recipe: Recipe) -> None:
        """See `Protection.check`."""
        if recipe.loss != "cross-entropy" or recipe.label_smoothing:
            raise ConfigurationError("RelaxLoss is about cross-entropy with labels as they are.")

    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        """See `Protection.fit`."""
        return fitting.fit(Relaxing(self.alpha)), {}


class Relaxing(Procedure):
    """The steps of RelaxLoss."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._up = True

    def identity(self) -> dict[str, Any]:
        """See `Procedure.identity`."""
        return {"procedure": "relaxloss", "version": 1, "alpha": self.alpha}

    def batches(self, run: Run, epoch: int) -> list[torch.Tensor]:
        """See `Procedure.batches`."""
        self._up = epoch % 2 == 0
        return super().batches(run, epoch)

    def loss(
        self, run: Run, logits: torch.Tensor, targets: torch.Tensor, batch: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """See `Procedure.loss`."""
        return relaxed(logits, targets, self.alpha, up=self._up)


def relaxed(logits: torch.Tensor, labels: torch.Tensor, alpha: float, *, up: bool) -> torch.Tensor:
    """The loss whose gradient RelaxLoss follows downwards on a batch, a scalar.

    Args:
        logits: N×K.
        labels: N int64.
        alpha: The mean loss that is wanted.
        up: Whether a batch with a lower loss steps up; its posteriors are flattened otherwise.
    """
    plain = functional.cross_entropy(logits, labels)
    if plain > alpha:
        return plain
    if up:
        return -plain
    with torch.no_grad():
        hard = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        own = logits.softmax(dim=1).gather(1, labels.unsqueeze(1))
        flat = hard * own + (1 - hard) * (1 - own) / (logits.shape[1] - 1)
        correct = (logits.argmax(dim=1) == labels).unsqueeze(1)
        wanted = torch.where(correct, flat, hard)
    return functional.cross_entropy(logits, wanted)
