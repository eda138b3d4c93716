"""The two norms in which perturbations are measured, for N images at once."""

from __future__ import annotations

from typing import Literal

import torch

Norm = Literal["linf", "l2"]

ROUNDING = 1e-5
"""What single precision may add to the size of a perturbation, in a norm."""


def sizes(perturbations: torch.Tensor, norm: Norm) -> torch.Tensor:
    """Norm of each perturbation, N, for N×C×H×W."""
    flat = perturbations.flatten(1)
    sizes_of: torch.Tensor = flat.abs().amax(dim=1) if norm == "linf" else flat.double().norm(dim=1).float()
    return sizes_of


def direction(gradients: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The step of size 1 along which a linear loss grows most, N×C×H×W; 0 where the gradient is 0.

    In L2 the gradient is scaled by its largest value first, so that the norm of a tiny one does not underflow.
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


def project(moved: torch.Tensor, images: torch.Tensor, epsilon: float, norm: Norm) -> torch.Tensor:
    """The nearest points within ``epsilon`` of ``images``, then clipped to [0, 1], N×C×H×W."""
    delta = moved - images
    if norm == "linf":
        return (images + delta.clamp(-epsilon, epsilon)).clamp(0, 1)
    norms = delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    shares: torch.Tensor = (epsilon / norms).clamp_max(1)
    return (images + delta * shares.view(-1, 1, 1, 1)).clamp(0, 1)


def random_start(images: torch.Tensor, epsilon: float, norm: Norm, generator: torch.Generator) -> torch.Tensor:
    """Random points within ``epsilon`` of images, clipped to [0, 1].

    Uniform in the cube for L∞; in a uniform direction, at a uniform share of ``epsilon``, for L2.
    """
    if norm == "linf":
        noise = torch.rand(images.shape, generator=generator) * 2 - 1
    else:
        noise = torch.randn(images.shape, generator=generator)
        noise = direction(noise, norm) * torch.rand((len(images), 1, 1, 1), generator=generator)
    moved: torch.Tensor = images + epsilon * noise.to(images.device)
    return moved.clamp(0, 1)
