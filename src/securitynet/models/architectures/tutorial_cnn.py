"""The convolutional network of PyTorch's tutorial on training a classifier; hundreds of repositories hold it trained.

Layers and names are those of the tutorial (https://pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html), so that
the file ``cifar_net.pth`` that it writes fits as it is.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from securitynet.models.architectures._common import check_arguments

SMALLEST = 16
"""Height and width in pixels that the convolutions need."""


class TutorialCNN(nn.Module):
    """Two blocks of 5×5 convolution, ReLU and 2×2 max pooling, then three linear layers.

    Args:
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels; it decides the first linear layer. Images of fewer than 16
            pixels are padded with zeros to 16.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(self, num_classes: int, channels: int = 3, image_size: int = 32) -> None:
        super().__init__()
        check_arguments("TutorialCNN", num_classes, channels, image_size)
        self.missing = max(0, SMALLEST - image_size)
        side = ((max(image_size, SMALLEST) - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×image_size×image_size)."""
        if self.missing:
            images = functional.pad(images, (0, self.missing, 0, self.missing))
        maps = self.pool(functional.relu(self.conv1(images)))
        maps = self.pool(functional.relu(self.conv2(maps)))
        hidden = functional.relu(self.fc2(functional.relu(self.fc1(maps.flatten(1)))))
        logits: torch.Tensor = self.fc3(hidden)
        return logits


def tutorial_cnn(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`TutorialCNN`: 62,006 weights for 10 classes of 32×32 colour images.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return TutorialCNN(num_classes, channels, image_size)
