"""Xception with a stem for small images.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from securitynet.models.architectures._common import check_arguments, initialise

_MIDDLE_WIDTH = 728
_MIDDLE_BLOCKS = 8


class SeparableConv(nn.Module):
    """A 3×3 convolution of each channel, then a 1×1 convolution across channels, then batch norm.

    There is no nonlinearity between the two convolutions (section 4.7).

    Args:
        width_in: Channels of the input.
        width: Channels of the output.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width_in, width_in, kernel_size=3, padding=1, groups=width_in, bias=False)
        self.pointwise = nn.Conv2d(width_in, width, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features N×width×H×W of features N×width_in×H×W."""
        out: torch.Tensor = self.bn(self.pointwise(self.depthwise(features)))
        return out


class XceptionBlock(nn.Module):
    """Separable convolutions, each after a ReLU, with a shortcut around them (figure 5).

    Args:
        widths: Channels of the input and of the output of each separable convolution.
        reduce: Halve height and width by overlapping max pooling; the shortcut is then a 1×1 projection.
        activate_first: Whether the first convolution too comes after a ReLU.
    """

    def __init__(self, widths: tuple[int, ...], *, reduce: bool, activate_first: bool = True) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if reduce:
            self.shortcut = nn.Sequential(
                nn.Conv2d(widths[0], widths[-1], kernel_size=1, stride=2, bias=False),
                nn.BatchNorm2d(widths[-1]),
            )
        layers: list[nn.Module] = []
        for width_in, width in pairwise(widths):
            layers += [nn.ReLU(), SeparableConv(width_in, width)]
        if reduce:
            layers.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        self.body = nn.Sequential(*layers[0 if activate_first else 1 :])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features N×widths[-1]×H×W, or of half that height and width, of features N×widths[0]×H×W."""
        out: torch.Tensor = self.body(features) + self.shortcut(features)
        return out


class Xception(nn.Module):
    """Entry, middle and exit flow (figure 5), without the entry flow's first stride.

    For small images the first convolution has stride 1 and the first two are padded, so that a 32×32 image
    reaches the middle flow as 4×4 and not as 2×2. All weights have the paper's shapes.

    Args:
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8. The weights do not depend on it.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(self, num_classes: int, channels: int = 3, image_size: int = 32) -> None:
        super().__init__()
        check_arguments("Xception", num_classes, channels, image_size)
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.entry = nn.Sequential(
            XceptionBlock((64, 128, 128), reduce=True, activate_first=False),
            XceptionBlock((128, 256, 256), reduce=True),
            XceptionBlock((256, _MIDDLE_WIDTH, _MIDDLE_WIDTH), reduce=True),
        )
        self.middle = nn.Sequential(*(XceptionBlock((_MIDDLE_WIDTH,) * 4, reduce=False) for _ in range(_MIDDLE_BLOCKS)))
        self.exit = nn.Sequential(
            XceptionBlock((_MIDDLE_WIDTH, _MIDDLE_WIDTH, 1024), reduce=True),
            SeparableConv(1024, 1536),
            nn.ReLU(),
            SeparableConv(1536, 2048),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×H×W)."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = F.relu(self.bn2(self.conv2(features)))
        features = self.exit(self.middle(self.entry(features)))
        logits: torch.Tensor = self.fc(self.pool(features).flatten(1))
        return logits


def xception(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`Xception`: 22,855,952 weights for 1,000 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return Xception(num_classes, channels, image_size)
