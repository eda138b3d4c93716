"""SimpleCNN: "2 convolutional layers and 2 fully connected layers" (Liu et al., ML-Doctor, section 5.3).

It has neither batch norm nor dropout, so it can be trained with DP-SGD as it stands (ML-Doctor, section 7.2).
The paper does not state its widths; those here are ours.
"""

from __future__ import annotations

import torch
from torch import nn

from securitynet.models.architectures._common import check_arguments, initialise


class SimpleCNN(nn.Module):
    """Two blocks of 3×3 convolution, ReLU and 2×2 max pooling, then two linear layers.

    Args:
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8; it decides the first linear layer.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(self, num_classes: int, channels: int = 3, image_size: int = 32) -> None:
        super().__init__()
        check_arguments("SimpleCNN", num_classes, channels, image_size)
        side = image_size // 2 // 2
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * side * side, 128),
            nn.ReLU(),
            nn.Linear(128, num_classes),
        )
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×image_size×image_size)."""
        logits: torch.Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def simple_cnn(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`SimpleCNN`: 0.55 million weights for 10 classes of 32×32 colour images.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return SimpleCNN(num_classes, channels, image_size)
