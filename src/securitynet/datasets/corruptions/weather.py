"""Weather: snow, frost, fog and brightness (Hendrycks and Dietterich, 2019, section 3.1).

Functions take images in [0, 1], N×C×H×W. The paper's frost overlays are photographs. Here frost is generated, so
that no images have to be distributed; its accuracies are not comparable with those that were published for ``frost``.
"""

from __future__ import annotations

import torch

from securitynet.datasets.corruptions.blur import blur_motion, zoom

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness (ITU-R BT.601)."""


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """Return the brightness, N×1×H×W."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    return (images * torch.tensor(GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def make_plasma(n: int, side: int, decay: float, random: torch.Generator) -> torch.Tensor:
    """Draw plasma fractals by the diamond-square algorithm, N×side×side, scaled to [0, 1].

    Fournier, Fussell and Carpenter, "Computer rendering of stochastic models" (1982).

    Args:
        n: Number of fractals.
        side: Side in pixels, a power of two.
        decay: Its square divides the random displacement at each halving of the grid.
        random: Random numbers.
    """
    field = torch.zeros(n, side, side)
    stride, size = side, 1.0

    def wobble(values: torch.Tensor) -> torch.Tensor:
        return values / 4 + size * (2 * torch.rand(values.shape, generator=random) - 1)

    while stride >= 2:
        half = stride // 2
        corners = field[:, ::stride, ::stride]
        sums = corners + corners.roll(-1, 1)
        field[:, half::stride, half::stride] = wobble(sums + sums.roll(-1, 2))
        centres = field[:, half::stride, half::stride]
        across = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        field[:, ::stride, half::stride] = wobble(across)
        down = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        field[:, half::stride, ::stride] = wobble(down)
        stride, size = half, size / decay**2
    field -= field.amin(dim=(1, 2), keepdim=True)
    return field / field.amax(dim=(1, 2), keepdim=True)


def add_fog(images: torch.Tensor, strength: float, decay: float, random: torch.Generator) -> torch.Tensor:
    """Add a plasma fractal and scale the result back to the brightest value of the image.

    Args:
        images: N×C×H×W.
        strength: Weight of the fog.
        decay: Decay of the fractal; smaller is rougher.
        random: Random numbers.
    """
    fog = strength * _plasma_like(images, decay, random)
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + fog) * brightest / (brightest + strength)


def add_frost(images: torch.Tensor, kept: float, frost: float, random: torch.Generator) -> torch.Tensor:
    """Mix images with generated frost: bright ridges of a fractal, bluish white.

    Args:
        images: N×C×H×W.
        kept: Weight of the image.
        frost: Weight of the frost.
        random: Random numbers.
    """
    field = _plasma_like(images, 1.6, random)
    crystals = (1 - (2 * field - 1).abs()).clamp(0, 1) ** 2  # ridges where the fractal crosses its middle
    tint = torch.tensor([0.85, 0.95, 1.0]).view(1, 3, 1, 1) if images.shape[1] == 3 else 1.0
    return kept * images + frost * crystals * tint


def add_snow(
    images: torch.Tensor,
    mean: float,
    deviation: float,
    scale: float,
    threshold: float,
    blur: tuple[int, float],
    kept: float,
    random: torch.Generator,
) -> torch.Tensor:
    """Whiten the image and add blurred flakes, also mirrored.

    Args:
        images: N×C×H×W.
        mean: Mean of the normal field of flakes.
        deviation: Its standard deviation.
        scale: Enlargement of the flakes.
        threshold: Values of the field below it are no flakes.
        blur: Length and standard deviation of the motion blur of the flakes, in pixels.
        kept: Weight of the image; the rest is a brightened grey version.
        random: Random numbers.
    """
    n, _, height, width = images.shape
    flakes = zoom(mean + deviation * torch.randn((n, 1, height, width), generator=random), scale)
    flakes = torch.where(flakes < threshold, torch.zeros_like(flakes), flakes).clamp(0, 1)
    flakes = blur_motion(flakes.rot90(1, (2, 3)), *blur, random).rot90(-1, (2, 3)).clamp(0, 1)
    whitened = torch.maximum(images, to_grey(images) * 1.5 + 0.5)
    return kept * images + (1 - kept) * whitened + flakes + flakes.rot90(2, (2, 3))


def brighten(images: torch.Tensor, amount: float) -> torch.Tensor:
    """Add to the value (of hue, saturation and value), which leaves hue and saturation as they are.

    Args:
        images: N×C×H×W.
        amount: What is added to the largest channel.
    """
    value = images.amax(dim=1, keepdim=True)
    raised = (value + amount).clamp(0, 1)
    # A black pixel has no hue; it becomes grey.
    return torch.where(value > 0, images / value.clamp_min(1e-12) * raised, raised.expand_as(images))


def _plasma_like(images: torch.Tensor, decay: float, random: torch.Generator) -> torch.Tensor:
    n, _, height, width = images.shape
    side = 1 << max(max(height, width) - 1, 1).bit_length()
    return make_plasma(n, side, decay, random)[:, None, :height, :width]
