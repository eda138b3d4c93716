"""What attacks that follow gradients share: signs, iterated steps, and the check that gradients lead anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.attacks.evasion._norms import Norm, direction, project, random_start
from securitynet.attacks.evasion.base import EvasionAttack
from securitynet.methods.context import Context
from securitynet.models.targets.input_gradients import InputGradients, Loss, cross_entropy, log_odds, margin
from securitynet.models.targets.target import Target
from securitynet.randomness import generator
from securitynet.records import Access, Auxiliary, ThreatModel

LossName = Literal["cross-entropy", "log-odds", "margin"]

LOSSES: dict[LossName, Loss] = {"cross-entropy": cross_entropy, "log-odds": log_odds, "margin": margin}

UNBOUNDED_STEP = 0.1
UNBOUNDED_STEPS = 20
"""Steps of the check without a bound: twice as many as lead from black to white."""


class GradientAttack(EvasionAttack):
    """An attack that has the target's own gradients.

    Attributes:
        check: Images on which it is tried whether steps without a bound lead anywhere; 0 leaves the check out.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE),)

    check: int = Field(default=32, ge=0, description="Images on which it is checked that gradients lead anywhere.")

    def unbounded_images(self) -> int:
        """See `EvasionAttack.unbounded_images`."""
        return self.check

    def unbounded(
        self, target: Target, images: torch.Tensor, labels: torch.Tensor, context: Context
    ) -> NDArray[np.bool_]:
        """See `EvasionAttack.unbounded`."""
        _, evaded = iterate(
            InputGradients(target, loss=log_odds),
            images,
            labels,
            epsilon=1.0,
            norm="linf",
            steps=UNBOUNDED_STEPS,
            step=UNBOUNDED_STEP,
            start=images,
        )
        return evaded.numpy()


def signs(take: InputGradients, spare: InputGradients | None, images: torch.Tensor, labels: torch.Tensor) -> Signs:
    """Signs of the gradients of a loss.

    Args:
        take: Of the loss.
        spare: Of a loss that does not saturate, for images whose gradient is 0 everywhere: on these the first would do
            nothing at all. None leaves them.
        images: n×C×H×W in [0, 1].
        labels: n.
    """
    passed = take(images, labels)
    gradients, empty = passed.gradients, vanished(passed.gradients)
    if spare is not None and bool(empty.any()):
        gradients[empty] = spare(images[empty], labels[empty]).gradients
    return Signs(gradients.sign(), vanished(gradients).numpy(), passed.logits.argmax(dim=1).cpu().numpy())


@dataclass(frozen=True, eq=False)
class Signs:
    """Signs of gradients.

    Attributes:
        signs: n×C×H×W, each -1, 0 or 1.
        vanished: Whether all of an image are 0, n.
        predictions: What the network takes the images for, n int64.
    """

    signs: torch.Tensor
    vanished: NDArray[np.bool_]
    predictions: NDArray[np.int64]


def vanished(gradients: torch.Tensor) -> torch.Tensor:
    """Whether an image's gradient is 0 everywhere, n."""
    return (gradients == 0).flatten(1).all(dim=1)


def one_step(images: torch.Tensor, signs: torch.Tensor, epsilon: float) -> torch.Tensor:
    """FGSM's examples (Goodfellow, Shlens and Szegedy, 2015, section 4), clipped to [0, 1]."""
    return torch.add(images, signs, alpha=epsilon).clamp_(0, 1)


def iterate(
    take: InputGradients,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilon: float,
    norm: Norm,
    steps: int,
    step: float,
    start: torch.Tensor,
    stop_early: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Projected gradient ascent (Madry et al., 2018, section 2.1).

    Args:
        take: Gradients of the loss to be made large.
        images: n×C×H×W in [0, 1].
        labels: n.
        epsilon: Largest norm of a perturbation.
        norm: Which one.
        steps: How many.
        step: Their size, in that norm.
        start: Where each image starts, within ``epsilon`` of it.
        stop_early: Whether an image is left alone as soon as it is misclassified. Otherwise all steps are taken.

    Returns:
        Where each image ended, n×C×H×W; and whether it is misclassified there, n.
    """
    current = start.clone()
    evaded = torch.zeros(len(images), dtype=torch.bool)
    rows = torch.arange(len(images))
    for _ in range(steps):
        if not len(rows):
            break
        passed = take(current[rows], labels[rows])
        if stop_early:
            wrong = passed.logits.argmax(dim=1) != labels[rows]
            evaded[rows[wrong]] = True
            rows, gradients = rows[~wrong], passed.gradients[~wrong]
        else:
            gradients = passed.gradients
        moved = current[rows] + step * direction(gradients, norm)
        current[rows] = project(moved, images[rows], epsilon, norm)
    if len(rows):
        evaded[rows] = take.logits(current[rows]).argmax(dim=1) != labels[rows]
    return current, evaded


def starting_points(
    images: torch.Tensor, epsilon: float, norm: Norm, seed: int, purpose: str, number: int
) -> torch.Tensor:
    """Random starts that the seed, a purpose and the number of a piece decide."""
    return random_start(images, epsilon, norm, generator(seed, purpose, number))
