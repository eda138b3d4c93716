"""What all architectures share: the check of their arguments, and the initial weights."""

from __future__ import annotations

from torch import nn

from securitynet.errors import ModelError

MINIMUM_IMAGE_SIZE = 8
"""Smallest height and width, in pixels, that every architecture here accepts."""


def check_arguments(architecture: str, num_classes: int, channels: int, image_size: int) -> None:
    """Refuse arguments for which no useful network can be built.

    Args:
        architecture: Name of the architecture, for messages.
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images, at least 1.
        image_size: Height and width of the images in pixels, at least `MINIMUM_IMAGE_SIZE`.

    Raises:
        ModelError: If an argument is too small.
    """
    if num_classes < 2:
        raise ModelError(
            f"{architecture} cannot classify into {num_classes} classes.",
            hint="Give the number of classes of the dataset, at least 2.",
        )
    if channels < 1:
        raise ModelError(
            f"{architecture} cannot take images of {channels} channels.",
            hint="Use 1 for grey or 3 for colour images.",
        )
    if image_size < MINIMUM_IMAGE_SIZE:
        raise ModelError(
            f"Images of {image_size}×{image_size} pixels are too small for {architecture}.",
            hint=f"Resize them to {MINIMUM_IMAGE_SIZE}×{MINIMUM_IMAGE_SIZE} or more.",
        )


def initialise(network: nn.Module) -> None:
    """Draw initial weights from torch's random state, in place (He et al., 2015, section 2.2).

    Weights of convolutions and linear layers are normal with variance 2 / fan-in, and biases are 0. The fan-in is used
    because torch does not divide the fan-out by the number of groups: a depthwise convolution of C channels would start
    with weights too small by the square root of C. Batch norms keep torch's initial values, scale 1 and shift 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
