"""The norms of perturbations, for N images at once."""

from __future__ import annotations

from typing import Literal

import torch

Norm = Literal["linf", "l2", "l1", "l0"]
"""Norms in which perturbations are measured. ``l0`` is the share of the pixels that change in any channel."""

SmoothNorm = Literal["linf", "l2"]
"""Norms with a choice of attacks."""

ROUNDING = 1e-5
"""Tolerance for rounding errors in the norm of a perturbation, in single precision."""


def measure_norms(perturbations: torch.Tensor, norm: Norm) -> torch.Tensor:
    """Return the norm of each perturbation, N, for N×C×H×W."""
    flat = perturbations.flatten(1)
    if norm == "linf":
        return flat.abs().amax(dim=1)
    if norm == "l0":
        return (perturbations != 0).any(dim=1).flatten(1).float().mean(dim=1)
    sizes_of: torch.Tensor = flat.double().norm(p=2 if norm == "l2" else 1, dim=1).float()
    return sizes_of


def find_direction(gradients: torch.Tensor, norm: SmoothNorm) -> torch.Tensor:
    """Return the step of norm 1 that increases a linear loss most, N×C×H×W; 0 where the gradient is 0.

    In L2, the gradient is first divided by its largest value, so that the norm of a tiny gradient does not underflow.
    """
    if norm == "linf":
        return gradients.sign()
    shape = (-1, 1, 1, 1)
    flat = gradients.flatten(1)
    largest = flat.abs().amax(dim=1)
    scaled = flat / torch.where(largest > 0, largest, torch.ones_like(largest))[:, None]
    norms = scaled.norm(dim=1)
    unit: torch.Tensor = scaled.view_as(gradients) / torch.where(norms > 0, norms, torch.ones_like(norms)).view(shape)
    return unit


def project(moved: torch.Tensor, images: torch.Tensor, epsilon: float, norm: SmoothNorm) -> torch.Tensor:
    """Project points to within ``epsilon`` of the images and clip them to [0, 1], N×C×H×W.

    Args:
        moved: Points to project.
        images: Centres, in [0, 1].
        epsilon: Largest distance.
        norm: Norm of the distance.
    """
    delta = moved - images
    if norm == "linf":
        return (images + delta.clamp(-epsilon, epsilon)).clamp(0, 1)
    norms = delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    shares: torch.Tensor = (epsilon / norms).clamp_max(1)
    return (images + delta * shares.view(-1, 1, 1, 1)).clamp(0, 1)


def draw_start(images: torch.Tensor, epsilon: float, norm: SmoothNorm, generator: torch.Generator) -> torch.Tensor:
    """Draw random points within ``epsilon`` of images, clipped to [0, 1].

    For L∞ they are uniform in the cube; for L2 they have a uniform direction and a uniform distance up to ``epsilon``.

    Args:
        images: Images in [0, 1], N×C×H×W.
        epsilon: Largest distance.
        norm: Norm of the distance.
        generator: Random numbers.
    """
    if norm == "linf":
        noise = torch.rand(images.shape, generator=generator) * 2 - 1
    else:
        noise = torch.randn(images.shape, generator=generator)
        noise = find_direction(noise, norm) * torch.rand((len(images), 1, 1, 1), generator=generator)
    moved: torch.Tensor = images + epsilon * noise.to(images.device)
    return moved.clamp(0, 1)
