"""How long a search will take, said before it starts."""

from __future__ import annotations

import logging

import torch

from securitynet.detectors._neural_cleanse.label_search import SearchPlan
from securitynet.models.targets.pass_time import ANNOUNCED_SECONDS, LEAST_PIXELS, describe_time, measure_pass
from securitynet.models.targets.target import Target

logger = logging.getLogger(__name__)


def announce_search(target: Target, images: torch.Tensor, plan: SearchPlan, starts: int) -> None:
    """Say how long a search will take, if that is long; labels that converge early end sooner.

    Args:
        target: The target, under white-box access.
        images: S×C×H×W.
        plan: Which labels are searched, and for how long.
        starts: Number of starting points of each label.
    """
    channels, height, width = images.shape[1:]
    passes = plan.work * starts * len(images)
    if passes * height * width < LEAST_PIXELS:
        return
    seconds = passes * measure_pass(target.module, (channels, height, width), target.backend.device)
    if seconds > ANNOUNCED_SECONDS:
        screening = "" if plan.screened is None else f" after {plan.screened} epochs of all"
        logger.warning(
            "Neural Cleanse will take about %s here: %s labels, %d of them for %d epochs%s, on %d images from %d "
            "starting points, and longer where norms have not settled (at most %d epochs). Fewer images, epochs or "
            "restarts, a lower screen_lowest or screen_sample, or a GPU, shorten it.",
            describe_time(seconds),
            f"{len(plan.labels):,}",
            plan.continued,
            plan.epochs,
            screening,
            len(images),
            starts,
            max(plan.epochs, plan.longest),
        )
