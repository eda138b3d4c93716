"""Patch: one square of an image is replaced, its content and its place chosen by the target's gradients.

Rao, Stutz and Schiele, "Adversarial training against location-optimized adversarial patches" (2020), section 3.1: PGD
on the content of the patch. Here the first place is the window with the largest gradient, and the others are random.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch.nn import functional
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._few_pixels import count_pixels, describe_empty
from securitynet.attacks.evasion._gradient import GradientAttack, find_vanished
from securitynet.attacks.evasion._norms import Norm
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion.base import Perturbed, Perturber
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator


class Patch(GradientAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Epsilon is the largest share of the image that the square covers: 0.05 is 7×7 pixels of 32×32.

    Attributes:
        places: Number of places that are tried for each image.
        steps: Number of steps at each place.
        step: Size of a step, as a multiple of ``1 / steps``.
    """

    costs: ClassVar[str | None] = "takes hundreds of forward and backward passes for each image"
    most_together: ClassVar[int] = 64

    samples: int = Field(default=200, ge=1, description="Number of non-members to perturb.")
    epsilons: tuple[float, ...] = Field(
        default=(0.02, 0.05), min_length=1, description="Largest shares of an image that the square covers."
    )
    places: int = Field(default=5, ge=1, description="Places tried for each image.")
    steps: int = Field(default=20, ge=1, description="Steps at each place.")
    step: float = Field(default=2.5, gt=0, allow_inf_nan=False, description="Size of a step, times 1 / steps.")

    @property
    @override
    def measured_in(self) -> Norm:
        return "l0"

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        take, stop_early = InputGradients(target, loss=log_odds), not is_averaged(target)
        _, height, width = data.dataset.image_shape

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            gradients = take(batch.images, batch.labels).gradients
            best, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
            examples = []
            for epsilon in self.epsilons:
                side = min(math.isqrt(count_pixels(epsilon, height, width)), height, width)
                random = make_generator(context.seed, f"patch at {epsilon:g}", batch.number)
                for place in range(self.places if side else 0):
                    if not len(rows):
                        break
                    images, labels = batch.images[rows], batch.labels[rows]
                    corners = find_places(gradients[rows], side)
                    if place:
                        corners = draw_patch_places(len(rows), side, height, width, random)
                    masks = make_masks(corners, side, height, width)
                    points, evaded = self._fill(take, images, labels, masks, random, stop_early)
                    best[rows[evaded]] = points[evaded]
                    rows = rows[~evaded]
                examples.append(best.clone())
            return Perturbed(torch.stack(examples)[None], vanished=find_vanished(gradients).numpy())

        return Perturber(perturb, notes=describe_empty(self.epsilons, height, width))

    def _fill(
        self,
        take: InputGradients,
        images: torch.Tensor,
        labels: torch.Tensor,
        masks: torch.Tensor,
        random: torch.Generator,
        stop_early: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images with their patches, n×C×H×W, and whether each is misclassified, n."""
        current = torch.where(masks, torch.rand(images.shape, generator=random), images)
        evaded, rows = torch.zeros(len(images), dtype=torch.bool), torch.arange(len(images))
        for _ in range(self.steps):
            passed = take(current[rows], labels[rows])
            gradients = passed.gradients
            if stop_early:
                wrong = passed.logits.argmax(dim=1) != labels[rows]
                evaded[rows[wrong]] = True
                rows, gradients = rows[~wrong], gradients[~wrong]
            if not len(rows):
                break
            moved = (current[rows] + self.step / self.steps * gradients.sign()).clamp(0, 1)
            current[rows] = torch.where(masks[rows], moved, current[rows])
        if len(rows):
            evaded[rows] = take.logits(current[rows]).argmax(dim=1) != labels[rows]
        return current, evaded


def find_places(gradients: torch.Tensor, side: int) -> torch.Tensor:
    """Return the upper left corner of the window with the largest sum of absolute gradients, n×2.

    Args:
        gradients: n×C×H×W.
        side: Side of the window in pixels.
    """
    sums = functional.avg_pool2d(gradients.abs().sum(dim=1, keepdim=True), side, stride=1)[:, 0]
    places = sums.flatten(1).argmax(dim=1)
    return torch.stack([places // sums.shape[2], places % sums.shape[2]], dim=1)


def draw_patch_places(n: int, side: int, height: int, width: int, random: torch.Generator) -> torch.Tensor:
    """Return random upper left corners of windows of a side within an image, n×2.

    Args:
        n: Number of corners.
        side: Side of a window in pixels.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        random: Source of the draws.
    """
    rows = torch.randint(0, height - side + 1, (n,), generator=random)
    return torch.stack([rows, torch.randint(0, width - side + 1, (n,), generator=random)], dim=1)


def make_masks(corners: torch.Tensor, side: int, height: int, width: int) -> torch.Tensor:
    """Return masks that are true in a window, n×1×H×W, for upper left corners n×2.

    Args:
        corners: Row and column of each corner, n×2.
        side: Side of a window in pixels.
        height: H, in pixels.
        width: W, in pixels.
    """
    rows, columns = torch.arange(height)[None] - corners[:, :1], torch.arange(width)[None] - corners[:, 1:]
    return (((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :])[:, None]
