"""The base of gradient attacks: signs, iterated steps, and the check for masked gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._norms import SmoothNorm, draw_start, find_direction, project
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion.base import EvasionAttack
from securitynet.methods.context import Context
from securitynet.models.targets.input_gradients import (
    InputGradients,
    Loss,
    compute_margin_loss,
    compute_stable_cross_entropy,
    log_odds,
)
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

LossName = Literal["cross-entropy", "log-odds", "margin"]

LOSSES: dict[LossName, Loss] = {
    "cross-entropy": compute_stable_cross_entropy,
    "log-odds": log_odds,
    "margin": compute_margin_loss,
}

UNBOUNDED_STEP = 0.1
UNBOUNDED_STEPS = 20
"""Steps of the unbounded check: twice as many as lead from black to white."""


class GradientAttack(EvasionAttack):
    """An attack that uses the target's own gradients.

    Attributes:
        check: Number of images for the check that unbounded steps succeed; 0 skips it.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE),)

    check: int = Field(default=32, ge=0, description="Images for the check that gradients are not masked.")

    @override
    def unbounded_images(self) -> int:
        return self.check

    @override
    def unbounded(
        self, target: Target, images: torch.Tensor, labels: torch.Tensor, context: Context
    ) -> NDArray[np.bool_]:
        _, evaded = iterate(
            InputGradients(target, loss=log_odds),
            images,
            labels,
            epsilon=1.0,
            norm="linf",
            steps=UNBOUNDED_STEPS,
            step=UNBOUNDED_STEP,
            start=images,
            stop_early=not is_averaged(target),
        )
        return evaded.numpy()


def compute_signs(take: InputGradients, images: torch.Tensor, labels: torch.Tensor) -> Signs:
    """Compute the signs of the gradients of a loss.

    Args:
        take: Gradients of the loss.
        images: Images in [0, 1], n×C×H×W.
        labels: True classes, n.
    """
    passed = take(images, labels)
    return Signs(
        passed.gradients.sign(), find_vanished(passed.gradients).numpy(), passed.logits.argmax(dim=1).cpu().numpy()
    )


@dataclass(frozen=True, eq=False)
class Signs:
    """Signs of gradients.

    Attributes:
        signs: Signs, n×C×H×W, each -1, 0 or 1.
        vanished: Whether the gradient of an image is 0 everywhere, n.
        predictions: Predictions of the network for the images, n int64.
    """

    signs: torch.Tensor
    vanished: NDArray[np.bool_]
    predictions: NDArray[np.int64]


def find_vanished(gradients: torch.Tensor) -> torch.Tensor:
    """Return whether the gradient of each image is 0 everywhere, n."""
    return (gradients == 0).flatten(1).all(dim=1)


def take_step(images: torch.Tensor, signs: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return the examples of FGSM (Goodfellow, Shlens and Szegedy, 2015, section 4), clipped to [0, 1].

    Args:
        images: Images in [0, 1], n×C×H×W.
        signs: Signs of the gradients, n×C×H×W.
        epsilon: Size of the step.
    """
    return torch.add(images, signs, alpha=epsilon).clamp_(0, 1)


def iterate(
    take: InputGradients,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilon: float,
    norm: SmoothNorm,
    steps: int,
    step: float,
    start: torch.Tensor,
    stop_early: bool = True,
    targeted: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run projected gradient ascent (Madry et al., 2018, section 2.1).

    Args:
        take: Gradients of the loss to maximise.
        images: Images in [0, 1], n×C×H×W.
        labels: True classes, n; or the classes to reach.
        epsilon: Largest norm of a perturbation.
        norm: The norm.
        steps: Number of steps.
        step: Size of a step in that norm.
        start: Starting point of each image, within ``epsilon`` of it.
        stop_early: Whether to stop on an image as soon as it is misclassified.
        targeted: Whether ``labels`` are to be reached instead of left.

    Returns:
        The final images, n×C×H×W, and whether each is misclassified, or classified as it was to be, n.
    """
    current = start.clone()
    evaded = torch.zeros(len(images), dtype=torch.bool)
    rows = torch.arange(len(images))
    for _ in range(steps):
        if not len(rows):
            break
        passed = take(current[rows], labels[rows])
        if stop_early:
            wrong = (passed.logits.argmax(dim=1) == labels[rows]) == targeted
            evaded[rows[wrong]] = True
            rows, gradients = rows[~wrong], passed.gradients[~wrong]
        else:
            gradients = passed.gradients
        moved = current[rows] + step * find_direction(gradients, norm)
        current[rows] = project(moved, images[rows], epsilon, norm)
    if len(rows):
        evaded[rows] = (take.logits(current[rows]).argmax(dim=1) == labels[rows]) == targeted
    return current, evaded


def draw_starts(
    images: torch.Tensor, epsilon: float, norm: SmoothNorm, seed: int, purpose: str, number: int
) -> torch.Tensor:
    """Draw random starting points, determined by the seed, a purpose and the number of the batch.

    Args:
        images: Images in [0, 1], n×C×H×W.
        epsilon: Largest norm of a perturbation.
        norm: The norm.
        seed: Seed of the run.
        purpose: Name of the use, which separates the random numbers of different uses.
        number: Number of the batch.
    """
    return draw_start(images, epsilon, norm, make_generator(seed, purpose, number))
