"""ResNet-18 and ResNet-34 with a stem for small images.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016. Parameters carry the names
that torchvision and timm use, so that public checkpoints of such networks with the small stem load.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from securitynet.models.architectures._common import check_arguments, initialise

_WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut around them (figure 5, left).

    Args:
        width_in: Channels of the input.
        width: Channels of the output.
        stride: Stride of the first convolution.
        downsample: What the shortcut does to the input; it must yield the shape that the convolutions yield.
    """

    def __init__(self, width_in: int, width: int, stride: int, downsample: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features N×width×⌈H/stride⌉×⌈W/stride⌉ of features N×width_in×H×W."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)))))
        return F.relu(residual + self.downsample(features))


class ResNet(nn.Module):
    """Four stages of basic blocks (table 1) behind a 3×3 stem of stride 1.

    The stem of the paper (7×7 with stride 2, then pooling) would shrink a 32×32 image to 8×8 before the first
    block. For images of ImageNet's size take ``torchvision:resnet18``: this network costs 12 times as much
    there.

    Args:
        depths: Number of blocks in each stage.
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8. The weights do not depend on it.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(
        self, depths: tuple[int, int, int, int], num_classes: int, channels: int = 3, image_size: int = 32
    ) -> None:
        super().__init__()
        check_arguments(f"ResNet-{2 * sum(depths) + 2}", num_classes, channels, image_size)
        self.conv1 = nn.Conv2d(channels, _WIDTHS[0], kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], depths[0], stride=1)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], depths[1], stride=2)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], depths[2], stride=2)
        self.layer4 = _stage(_WIDTHS[2], _WIDTHS[3], depths[3], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_WIDTHS[3], num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×H×W)."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: torch.Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def resnet18(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`ResNet` of 18 layers: 11.2 million weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return ResNet((2, 2, 2, 2), num_classes, channels, image_size)


def resnet34(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`ResNet` of 34 layers: 21.3 million weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return ResNet((3, 4, 6, 3), num_classes, channels, image_size)


def _stage(width_in: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """Blocks of one width; the first takes the stride and, if shapes change, a projection (option B)."""
    projection: nn.Module = nn.Identity()
    if stride != 1 or width_in != width:
        projection = nn.Sequential(
            nn.Conv2d(width_in, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    first = BasicBlock(width_in, width, stride, projection)
    return nn.Sequential(first, *(BasicBlock(width, width, 1, nn.Identity()) for _ in range(depth - 1)))
