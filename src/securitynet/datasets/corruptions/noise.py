"""Noise: Gaussian, shot and impulse noise (Hendrycks and Dietterich, 2019, section 3.1).

Each function takes images in [0, 1], N×C×H×W, one parameter and a generator, and returns images of the same shape that
may leave [0, 1]; `securitynet.datasets.corruptions.kinds` clips them.
"""

from __future__ import annotations

import torch


def add_gaussian_noise(images: torch.Tensor, deviation: float, random: torch.Generator) -> torch.Tensor:
    """Add independent normal noise, as in low light.

    Args:
        images: N×C×H×W.
        deviation: Standard deviation.
        random: Random numbers.
    """
    return images + deviation * torch.randn(images.shape, generator=random)


def add_shot_noise(images: torch.Tensor, photons: float, random: torch.Generator) -> torch.Tensor:
    """Replace each value by a Poisson count with that mean, as electrons in a sensor do.

    Args:
        images: N×C×H×W.
        photons: Mean count of a white pixel.
        random: Random numbers.
    """
    return torch.poisson(images * photons, generator=random) / photons


def add_impulse_noise(images: torch.Tensor, share: float, random: torch.Generator) -> torch.Tensor:
    """Set a share of the values to black or white, as bit errors do.

    Args:
        images: N×C×H×W.
        share: Share of the values.
        random: Random numbers.
    """
    drawn = torch.rand(images.shape, generator=random)
    noisy = torch.where(drawn < share / 2, torch.zeros_like(images), images)
    return torch.where(drawn >= 1 - share / 2, torch.ones_like(images), noisy)
