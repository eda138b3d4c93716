"""The fifteen kinds at five severities, with the parameters of CIFAR-10-C and of ImageNet-C.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations" (2019).
Images with a shorter side of up to `SMALL` pixels get the parameters of CIFAR-10-C, larger ones those of ImageNet-C.
Lengths are given in pixels at 32 and 224, and scale with the shorter side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from securitynet.datasets.corruptions import blur, digital, noise, weather

SMALL = 96
"""Largest shorter side, in pixels, of images that are treated like those of CIFAR-10."""

SEVERITIES = 5

Corrupt = Callable[[torch.Tensor, Any, float, torch.Generator], torch.Tensor]
"""Images N×C×H×W, parameters of one severity, the scale of lengths, and random numbers in; images out."""


def _distance(pixels: float, scale: float) -> int:
    return max(round(pixels * scale), 1)


def _snow(images: torch.Tensor, p: Any, scale: float, random: torch.Generator) -> torch.Tensor:
    mean, deviation, enlargement, threshold, length, width, kept = p
    motion = (_distance(length, scale), width * scale)
    return weather.add_snow(images, mean, deviation, enlargement, threshold, motion, kept, random)


FUNCTIONS: dict[str, Corrupt] = {
    "gaussian-noise": lambda images, p, scale, random: noise.add_gaussian_noise(images, p, random),
    "shot-noise": lambda images, p, scale, random: noise.add_shot_noise(images, p, random),
    "impulse-noise": lambda images, p, scale, random: noise.add_impulse_noise(images, p, random),
    "defocus-blur": lambda images, p, scale, random: blur.blur_defocus(images, p[0] * scale, p[1]),
    "glass-blur": lambda images, p, scale, random: blur.blur_glass(
        images, p[0] * scale, _distance(p[1], scale), p[2], random
    ),
    "motion-blur": lambda images, p, scale, random: blur.blur_motion(
        images, _distance(p[0], scale), p[1] * scale, random
    ),
    "zoom-blur": lambda images, p, scale, random: blur.blur_zoom(images, *p),
    "snow": _snow,
    "frost": lambda images, p, scale, random: weather.add_frost(images, p[0], p[1], random),
    "fog": lambda images, p, scale, random: weather.add_fog(images, p[0], p[1], random),
    "brightness": lambda images, p, scale, random: weather.brighten(images, p),
    "contrast": lambda images, p, scale, random: digital.reduce_contrast(images, p),
    "elastic": lambda images, p, scale, random: digital.deform(
        images, p[0] * scale, p[1] * scale, p[2] * scale, random
    ),
    "pixelate": lambda images, p, scale, random: digital.pixelate(images, p),
    "jpeg": lambda images, p, scale, random: digital.compress_jpeg(images, p),
}
"""By kind, in the order of the paper: noise, blur, weather, digital."""

KINDS = tuple(FUNCTIONS)

CIFAR: dict[str, tuple[Any, ...]] = {
    "gaussian-noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot-noise": (500, 250, 100, 75, 50),
    "impulse-noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus-blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass-blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion-blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom-blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic": ((0, 1, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg": (80, 65, 58, 50, 40),
}

IMAGENET: dict[str, tuple[Any, ...]] = {
    "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot-noise": (60, 25, 12, 5, 3),
    "impulse-noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus-blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass-blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion-blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom-blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic": ((488, 171, 24.4), (488, 19.5, 48.8), (12.2, 2.44, 4.88), (17.1, 2.44, 4.88), (29.3, 2.44, 4.88)),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg": (25, 18, 15, 10, 7),
}


def corrupt(images: torch.Tensor, kind: str, severity: int, random: torch.Generator) -> torch.Tensor:
    """Corrupt images.

    Args:
        images: N×C×H×W uint8.
        kind: One of `KINDS`.
        severity: From 1 to `SEVERITIES`.
        random: Random numbers.

    Returns:
        N×C×H×W uint8.
    """
    side = min(images.shape[2:])
    table, reference = (CIFAR, 32) if side <= SMALL else (IMAGENET, 224)
    changed = FUNCTIONS[kind](images.float() / 255, table[kind][severity - 1], side / reference, random)
    return (changed.clamp(0, 1) * 255).round().byte()
