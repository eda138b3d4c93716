"""AlexNet for small images.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS
2012.
"""

from __future__ import annotations

import torch
from torch import nn

from securitynet.models.architectures._common import check_arguments, initialise

_GRID = 2  # height and width of the feature map that the linear layers see; what 28 to 32 pixels lead to
_HIDDEN = 4096


class AlexNet(nn.Module):
    """Five convolutional and three linear layers (section 3.5), for images of about 28 to 64 pixels.

    As in the paper: overlapping max pooling (3.4), dropout before the first two linear layers (4.2), and the number of
    linear units. Changed for small images: the first layer is 5×5 with stride 2 (1 below 28 pixels) instead of 11×11
    with stride 4; there is one tower of 64, 192, 384, 256 and 256 channels, and no response normalisation.

    Args:
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8. The weights do not depend on it.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(self, num_classes: int, channels: int = 3, image_size: int = 32) -> None:
        super().__init__()
        check_arguments("AlexNet", num_classes, channels, image_size)
        # On a 1×1 map a padded 3×3 filter sees one pixel and eight zeros: without batch norm the signal vanishes
        # layer by layer. So smaller images are reduced less, and none below the grid.
        stride = 2 if image_size >= 28 else 1
        last_pool = _overlapping_pool() if image_size > 8 else nn.Identity()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, kernel_size=5, stride=stride, padding=2),
            nn.ReLU(),
            _overlapping_pool(),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            _overlapping_pool(),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            last_pool,
        )
        self.pool = nn.AdaptiveAvgPool2d(_GRID)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(256 * _GRID * _GRID, _HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, num_classes),
        )
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×H×W)."""
        logits: torch.Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


def alexnet(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`AlexNet`: 23.5 million weights for 10 classes and 3 channels.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return AlexNet(num_classes, channels, image_size)


def _overlapping_pool() -> nn.MaxPool2d:
    """3×3 windows, stride 2; the padding makes n pixels ⌈n/2⌉."""
    return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
