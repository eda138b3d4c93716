"""The ResNets for CIFAR: 6n + 2 layers, three stages, shortcuts without weights.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. Parameters are
named ``conv1, bn1, layer1..3.N.conv1/bn1/conv2/bn2, linear``, as in the public checkpoints of these networks.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from securitynet.models.architectures._common import check_arguments, initialise
from securitynet.models.architectures.resnet import BasicBlock

_WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """The identity shortcut where shapes change (option A, section 3.3): every second pixel, and zero channels.

    Half of the new channels come before the old ones and half after, as in the public checkpoints.

    Args:
        width_in: Channels of the input.
        width: Channels of the output.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.before = (width - width_in) // 2
        self.after = width - width_in - self.before

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features N×width×⌈H/2⌉×⌈W/2⌉ of features N×width_in×H×W."""
        return F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class CifarResNet(nn.Module):
    """Three stages of n basic blocks with 16, 32 and 64 channels (section 4.2, first table).

    Args:
        blocks: Blocks in each stage, n; the network has 6n + 2 layers.
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8. The weights do not depend on it.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(self, blocks: int, num_classes: int, channels: int = 3, image_size: int = 32) -> None:
        super().__init__()
        check_arguments(f"CIFAR ResNet-{6 * blocks + 2}", num_classes, channels, image_size)
        self.conv1 = nn.Conv2d(channels, _WIDTHS[0], kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(_WIDTHS[2], num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×H×W)."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: torch.Tensor = self.linear(self.pool(features).flatten(1))
        return logits


def cifar_resnet20(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`CifarResNet` of 20 layers: 269,722 weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return CifarResNet(3, num_classes, channels, image_size)


def cifar_resnet32(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`CifarResNet` of 32 layers: 464,154 weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return CifarResNet(5, num_classes, channels, image_size)


def cifar_resnet44(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`CifarResNet` of 44 layers: 658,586 weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return CifarResNet(7, num_classes, channels, image_size)


def cifar_resnet56(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`CifarResNet` of 56 layers: 853,018 weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return CifarResNet(9, num_classes, channels, image_size)


def cifar_resnet110(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`CifarResNet` of 110 layers: 1,727,962 weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return CifarResNet(18, num_classes, channels, image_size)


def _stage(width_in: int, width: int, blocks: int) -> nn.Sequential:
    """Blocks of one width; if it differs from the input's, the first block halves height and width."""
    if width_in == width:
        first = BasicBlock(width_in, width, 1, nn.Identity())
    else:
        first = BasicBlock(width_in, width, 2, PaddedShortcut(width_in, width))
    return nn.Sequential(first, *(BasicBlock(width, width, 1, nn.Identity()) for _ in range(blocks - 1)))
