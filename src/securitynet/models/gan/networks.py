"""Generator and discriminator of a DCGAN, for images of any size from 8 pixels a side up.

Images that are not square are the centre of a square with their longer side: the generator's margin is cut off, and
that of the discriminator's input repeats the edges.

Radford et al. (2016), section 3: strided convolutions instead of pooling, batch normalisation everywhere but at the
generator's output and the discriminator's input, ReLU in the generator and leaky ReLU in the discriminator.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from securitynet.errors import ModelError

SMALLEST_SIDE = 8
"""Smallest height and width of images, in pixels."""

_CHANNELS = (1, 3)


def choose_layout(size: int) -> tuple[int, int]:
    """(number of doublings, initial side): a grid of 4 to 8 pixels a side, doubled until it covers ``size`` pixels.

    If the last grid is larger than the image (30 pixels: 8, 16, 32), its margin is cut off.
    """
    doublings = int(math.log2(size / 4))
    return doublings, -(-size // 2**doublings)


def _widths(size: int, width: int) -> list[int]:
    """Channels from the image inwards: doubled at each level, up to eight times ``width``."""
    return [width * min(8, 2**level) for level in range(choose_layout(size)[0])]


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width)."""
    return size if isinstance(size, tuple) else (size, size)


def _check(channels: int, sides: tuple[int, int]) -> None:
    if channels not in _CHANNELS:
        raise ModelError(f"A DCGAN makes images of 1 or 3 channels, not of {channels}.", hint="Convert them.")
    if min(sides) < SMALLEST_SIDE:
        raise ModelError(
            f"Images of {sides[0]}×{sides[1]} pixels are too small for a DCGAN.",
            hint=f"Resize them to {SMALLEST_SIDE} pixels or more with --image-size.",
        )


class GANGenerator(nn.Module):
    """Generates images in [0, 1] from noise.

    Args:
        latent: Dimensions of the noise.
        channels: 1 or 3.
        size: Height and width of the images in pixels, or both if they differ, at least `SMALLEST_SIDE`.
        width: Channels of the feature maps next to the image.

    Raises:
        ModelError: If no such network can be built.
    """

    def __init__(self, latent: int, channels: int, size: int | tuple[int, int], width: int) -> None:
        super().__init__()
        self.sides = _sides(size)
        _check(channels, self.sides)
        self.latent, self.size = latent, (size := max(self.sides))
        widths = _widths(size, width)[::-1]
        side = choose_layout(size)[1]
        # A transposed convolution of a single pixel is a linear layer; the paper's projection is built in this way.
        blocks: list[nn.Module] = [_up_block(latent, widths[0], side, 1, 0)]
        blocks += [_up_block(before, after, 4, 2, 1) for before, after in itertools.pairwise(widths)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1)
        _initialise(self)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Images N×C×H×W in [0, 1] for standard normal noise, N×latent."""
        images: torch.Tensor = self.last(self.blocks(noise[:, :, None, None]))
        height, width = self.sides
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        images = images[..., top : top + height, left : left + width]
        return (torch.tanh(images) + 1) / 2

    def folded(self) -> GANGenerator:
        """Freeze the generator in evaluation mode and fold its batch norms into the convolutions; returns itself."""
        self.eval().requires_grad_(False)
        for block in self.blocks:
            assert isinstance(block, nn.Sequential)
            up, norm = block[0], block[1]
            assert isinstance(up, nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)
            block[0] = fuse_conv_bn_eval(up, norm, transpose=True).requires_grad_(False)
            block[1] = nn.Identity()
        return self


class Discriminator(nn.Module):
    """Maps images in [0, 1] to one logit each, high for images that look real.

    Args:
        channels: 1 or 3.
        size: Height and width of the images in pixels, or both if they differ, at least `SMALLEST_SIDE`.
        width: Channels of the feature maps next to the image.

    Raises:
        ModelError: If no such network can be built.
    """

    def __init__(self, channels: int, size: int | tuple[int, int], width: int) -> None:
        super().__init__()
        sides = _sides(size)
        _check(channels, sides)
        size = max(sides)
        widths = _widths(size, width)
        canvas = choose_layout(size)[1] * 2 ** choose_layout(size)[0]
        self.margins = canvas - sides[0], canvas - sides[1]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1] * choose_layout(size)[1] ** 2, 1)
        _initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, N, for images N×C×H×W in [0, 1]."""
        if any(self.margins):
            (top, bottom), (left, right) = ((margin // 2, margin - margin // 2) for margin in self.margins)
            images = functional.pad(images, (left, right, top, bottom), mode="replicate")
        logits: torch.Tensor = self.last(self.features(images * 2 - 1).flatten(1))
        return logits.squeeze(1)


def _up_block(before: int, after: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, kernel, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def _initialise(network: nn.Module) -> None:
    """Normal weights with deviation 0.02 (Radford et al., section 4), drawn from torch's random state."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
