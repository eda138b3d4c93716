"""Wide residual networks: WRN-28-10, and WRN-50-2 from torchvision with a stem that fits the image size.

Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from securitynet.errors import ModelError
from securitynet.models.architectures._common import check_arguments, initialise
from securitynet.torchvision_cure import import_torchvision

LARGEST_SMALL_IMAGE = 64
"""Height and width in pixels up to which `wrn_50_2` takes the stem for small images."""


class WideBlock(nn.Module):
    """Batch norm, ReLU and 3×3 convolution, twice, and a shortcut (figure 1c).

    Parameters carry the names that the public WRN checkpoints for CIFAR share, ``convShortcut`` among them.

    Args:
        width_in: Channels of the input.
        width: Channels of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.convShortcut = (
            nn.Conv2d(width_in, width, kernel_size=1, stride=stride, bias=False)
            if stride != 1 or width_in != width
            else None
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features N×width×⌈H/stride⌉×⌈W/stride⌉ of features N×width_in×H×W."""
        activated = F.relu(self.bn1(features))
        residual = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        # Where the shape changes, the projection starts from the activated features, elsewhere from the raw.
        shortcut = features if self.convShortcut is None else self.convShortcut(activated)
        out: torch.Tensor = shortcut + residual
        return out


class WideStage(nn.Module):
    """Blocks of one width; the first takes the stride.

    Args:
        width_in: Channels of the input.
        width: Channels of the output.
        blocks: Number of blocks.
        stride: Stride of the first block.
    """

    def __init__(self, width_in: int, width: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(width_in, width, stride)
        self.layer = nn.Sequential(first, *(WideBlock(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features N×width×⌈H/stride⌉×⌈W/stride⌉ of features N×width_in×H×W."""
        out: torch.Tensor = self.layer(features)
        return out


class WideResNet(nn.Module):
    """WRN-depth-factor for small images (table 1): three stages of 16, 32 and 64 channels times the factor.

    Args:
        depth: Number of layers, 6n + 4 for n blocks in each stage.
        factor: The widening factor k.
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8. The weights do not depend on it.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(self, depth: int, factor: int, num_classes: int, channels: int = 3, image_size: int = 32) -> None:
        super().__init__()
        check_arguments(f"WRN-{depth}-{factor}", num_classes, channels, image_size)
        blocks, remainder = divmod(depth - 4, 6)
        if blocks < 1 or remainder:
            raise ModelError(
                f"There is no wide ResNet of {depth} layers.",
                hint="Its depth must be 6n + 4: 10, 16, 22, 28, 34, 40 and so on.",
            )
        self.conv1 = nn.Conv2d(channels, 16, kernel_size=3, padding=1, bias=False)
        self.block1 = WideStage(16, 16 * factor, blocks, stride=1)
        self.block2 = WideStage(16 * factor, 32 * factor, blocks, stride=2)
        self.block3 = WideStage(32 * factor, 64 * factor, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * factor)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * factor, num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×H×W)."""
        features = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: torch.Tensor = self.fc(self.pool(F.relu(self.bn1(features))).flatten(1))
        return logits


def wrn_28_2(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`WideResNet` of 28 layers, twice as wide: 1,467,610 weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return WideResNet(28, 2, num_classes, channels, image_size)


def wrn_28_10(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`WideResNet` of 28 layers, ten times as wide: 36,479,194 weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return WideResNet(28, 10, num_classes, channels, image_size)


def wrn_50_2(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """Wide ResNet-50-2, which is torchvision's: 68,883,240 weights for 1,000 classes of large images.

    Up to `LARGEST_SMALL_IMAGE` pixels its stem is a 3×3 convolution of stride 1 without pooling, as in
    `ResNet`; above, it is torchvision's own (7×7, stride 2, pooling), whose checkpoints for 3 channels then
    load.

    Args:
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.

    Raises:
        ModelError: If no network can be built for the arguments.
    """
    check_arguments("WRN-50-2", num_classes, channels, image_size)
    network: nn.Module = import_torchvision("torchvision.models").wide_resnet50_2(weights=None, num_classes=num_classes)
    small = image_size <= LARGEST_SMALL_IMAGE
    if small or channels != 3:
        kernel, stride = (3, 1) if small else (7, 2)
        stem = nn.Conv2d(channels, 64, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False)
        initialise(stem)
        network.conv1 = stem
    if small:
        network.maxpool = nn.Identity()
    return network
