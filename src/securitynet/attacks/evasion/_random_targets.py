"""Random targets: recognised by forward passes, and attacked through means over several draws.

An image that one draw of a random network misclassifies by chance is not an adversarial example. So gradients are means
over draws (expectation over transformation: Athalye, Engstrom, Ilyas and Kwok, "Synthesizing robust adversarial
examples", 2018, section 2.1), and predictions are those of mean outputs.
"""

from __future__ import annotations

import torch

from securitynet.models.loading.sanity_checks import compare_outputs
from securitynet.models.targets.backends.averaged import AveragedBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

IMAGES = 16
"""Number of images on which two forward passes are compared."""

TOLERANCE = 1e-4
"""Largest difference of two passes, relative to the largest output, that rounding may cause."""


def average_random(target: Target, images: torch.Tensor) -> Target:
    """Return the target, or a view of it that averages its outputs if it turns out to be random.

    Only targets under white-box access are examined, because forward passes of a network are no queries. A target that
    was loaded with ``--allow-random`` averages its outputs already.

    Args:
        target: The target.
        images: A few images in [0, 1], n×C×H×W.
    """
    if is_averaged(target) or not target.access.covers(Access.WHITE_BOX):
        return target
    module, inputs = target.module, images[:IMAGES].to(target.backend.device)
    try:
        with torch.inference_mode():
            first, second = module(inputs).float().cpu(), module(inputs).float().cpu()
    except RuntimeError:  # the first query of the target explains what is wrong with the images
        return target
    if compare_outputs(first, second).largest <= TOLERANCE:
        return target
    return Target(
        AveragedBackend(target.backend),
        head=target.head,
        preprocessing=target.preprocessing,
        access=target.access,
        query_counter=target.query_counter,
        precision=target.precision,
        notes=target.notes,
        checks=target.checks,
        class_names=target.class_names,
    )


def is_averaged(target: Target) -> bool:
    """Return whether the outputs of a target are means over several draws, so that a single draw proves nothing."""
    return target.backend.repeats > 1


def describe_goals(target: Target) -> tuple[str, ...]:
    """Return the note on a random target; nothing for others."""
    if not is_averaged(target):
        return ()
    return (
        f"The target is random: gradients and predictions are means over {target.backend.repeats} draws, and an image "
        "counts as misclassified by a fresh mean, not by the draw that the attack saw.",
    )
