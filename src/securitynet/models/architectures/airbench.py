"""Airbench: a network that trains on CIFAR-10 in very few operations (Jordan, 2024, arXiv 2404.00498).

A frozen first layer whitens 2×2 patches of the images, then come three blocks of two convolutions. Convolutions start
as the identity where their shapes allow, batch norms shift but do not scale, and the logits are divided by 9. Where our
network differs from the paper's: the division precedes the last layer, so that the network ends in it; the biases of
the first layer are trained to the end, not for three epochs; and blocks stop halving images of one pixel, so that 8×8
images are possible.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from securitynet.models.architectures._common import check_arguments

_PATCH = 2
_LEAST_VARIANCE = 5e-4
"""Added to the variances before the division by their roots: directions that hardly occur are not blown up."""

_LOGIT_SCALE = 1 / 9
_NORM_MOMENTUM = 0.4
"""Weight of a new batch in the running statistics; the paper's momentum of 0.6 is that of the old ones."""

_PATCH_IMAGES = 500


class Airbench(nn.Module):
    """Patch whitening, three blocks, global max pooling and a linear layer without biases.

    Attributes:
        whitened: Whether the first layer was computed from images; before that its filters are random.

    Args:
        widths: Channels of the three blocks.
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    whitened: torch.Tensor

    def __init__(self, widths: tuple[int, int, int], num_classes: int, channels: int = 3, image_size: int = 32) -> None:
        super().__init__()
        check_arguments("Airbench", num_classes, channels, image_size)
        filters = 2 * channels * _PATCH**2
        self.whitening = nn.Conv2d(channels, filters, _PATCH)
        self.whitening.weight.requires_grad_(False)
        self.register_buffer("whitened", torch.tensor(False))
        blocks, width_in, side = [], filters, image_size - _PATCH + 1
        for width in widths:
            pooling = min(2, side)
            blocks.append(AirbenchBlock(width_in, width, pooling))
            width_in, side = width, side // pooling
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(width_in, num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×image_size×image_size)."""
        features = self.blocks(functional.gelu(self.whitening(images)))
        # Not AdaptiveMaxPool2d: its gradient on a GPU is not deterministic.
        logits: torch.Tensor = self.linear(features.amax(dim=(2, 3)) * _LOGIT_SCALE)
        return logits

    @torch.no_grad()
    def initialise_from_images(self, images: torch.Tensor) -> None:
        """Compute the whitening layer, unless it has been computed already.

        Args:
            images: Some training images, preprocessed, N×channels×image_size×image_size.
        """
        if self.whitened:
            return
        filters = compute_whitening_filters(images).to(self.whitening.weight)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))
        self.whitened.fill_(True)


class AirbenchBlock(nn.Module):
    """Convolution, max pooling, batch norm, GELU; convolution, batch norm, GELU.

    Args:
        width_in: Channels of the input.
        width: Channels of the output.
        pooling: Side of the pooled squares, 1 or 2.
    """

    def __init__(self, width_in: int, width: int, pooling: int) -> None:
        super().__init__()
        self.conv1 = _make_convolution(width_in, width)
        self.pool = nn.MaxPool2d(pooling)
        self.norm1 = _make_norm(width)
        self.conv2 = _make_convolution(width, width)
        self.norm2 = _make_norm(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of half the height and width, rounded down, if the block pools squares of 2×2 pixels."""
        pooled = functional.gelu(self.norm1(self.pool(self.conv1(features))))
        activations: torch.Tensor = functional.gelu(self.norm2(self.conv2(pooled)))
        return activations


def compute_whitening_filters(images: torch.Tensor) -> torch.Tensor:
    """Filters whose outputs on the 2×2 patches of images are uncorrelated and have variance 1.

    They are the eigenvectors of the patches' covariance, divided by the roots of the eigenvalues (ZCA without the
    rotation back).

    Args:
        images: N×C×H×W.

    Returns:
        4C×C×2×2 float64 on the CPU, in ascending order of the eigenvalues.
    """
    channels = images.shape[1]
    size = channels * _PATCH**2
    total, products, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
    for part in torch.split(images, _PATCH_IMAGES):
        patches = functional.unfold(part.float().cpu(), _PATCH).movedim(1, 0).flatten(1).double()  # 4C×M
        total += patches.sum(1)
        products += patches @ patches.T
        count += patches.shape[1]
    mean = total / count
    variances, directions = torch.linalg.eigh(products / count - mean.outer(mean))
    filters: torch.Tensor = directions / (variances.clamp_min(0) + _LEAST_VARIANCE).sqrt()
    return filters.T.reshape(size, channels, _PATCH, _PATCH)


def airbench(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`Airbench` with 64, 256 and 256 channels: 2.0 million weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return Airbench((64, 256, 256), num_classes, channels, image_size)


def airbench_small(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`Airbench` with 32, 64 and 128 channels, a width of ours for small or grey images.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return Airbench((32, 64, 128), num_classes, channels, image_size)


def airbench_wide(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`Airbench` with 128, 384 and 384 channels, as the paper trains it to 95%.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return Airbench((128, 384, 384), num_classes, channels, image_size)


def _make_convolution(width_in: int, width: int) -> nn.Conv2d:
    """A 3×3 convolution whose first filters pass the channels through; the others keep torch's initial weights."""
    layer = nn.Conv2d(width_in, width, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:width_in])
    return layer


def _make_norm(width: int) -> nn.BatchNorm2d:
    """A batch norm whose scale stays 1."""
    norm = nn.BatchNorm2d(width, momentum=_NORM_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm
