"""VGG for small images, with batch norm.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
"""

from __future__ import annotations

import torch
from torch import nn

from securitynet.models.architectures._common import check_arguments, initialise

_WIDTHS = (64, 128, 256, 512, 512)  # channels of the five stages (table 1)
_HIDDEN = 512


class VGG(nn.Module):
    """Stages of 3×3 convolutions, each followed by max pooling, then three linear layers (section 2.1, table 1).

    Changed for small images: batch norm after each convolution, average pooling to one pixel, and linear layers of 512
    units rather than 4096, which suited feature maps of 7×7. A pooling that would leave no pixel is skipped (the fourth
    and fifth at 8×8), so the weights do not depend on the image size.

    Args:
        depths: Number of convolutions in each of the five stages.
        num_classes: Number of logits.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.

    Raises:
        ModelError: If no network can be built for the arguments.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int, int],
        num_classes: int,
        channels: int = 3,
        image_size: int = 32,
    ) -> None:
        super().__init__()
        check_arguments(f"VGG-{sum(depths) + 3}", num_classes, channels, image_size)
        layers: list[nn.Module] = []
        width_in, side = channels, image_size
        for depth, width in zip(depths, _WIDTHS, strict=True):
            for _ in range(depth):
                layers += [
                    nn.Conv2d(width_in, width, kernel_size=3, padding=1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                width_in = width
            # An identity in the place of a pooling keeps the parameters' names the same at all sizes.
            layers.append(nn.MaxPool2d(2) if side >= 2 else nn.Identity())
            side = max(side // 2, 1)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(_WIDTHS[-1], _HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(_HIDDEN, num_classes),
        )
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N×num_classes) of images (N×channels×image_size×image_size)."""
        logits: torch.Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


def vgg11(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`VGG` of 8 convolutional, 3 linear layers (configuration A): 9.8 million weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return VGG((1, 1, 2, 2, 2), num_classes, channels, image_size)


def vgg19(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """`VGG` of 16 convolutional, 3 linear layers (configuration E): 20.6 million weights for 10 classes.

    Args:
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images.
        image_size: Height and width of the images in pixels, at least 8.
    """
    return VGG((2, 2, 4, 4, 4), num_classes, channels, image_size)
