"""Build an architecture by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securitynet.models.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from torch import nn


def build(name: str, num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
    """Build a network with new initial weights, in training mode, on torch's default device.

    Set torch's seed beforehand to get the same weights each time; build under ``torch.device("meta")`` if only shapes
    matter.

    Args:
        name: A name in `ARCHITECTURES`.
        num_classes: Number of logits, at least 2.
        channels: Channels of the input images, 1 for grey and 3 for colour.
        image_size: Height and width of the input images in pixels.

    Returns:
        A network from N×channels×image_size×image_size (float) to N×num_classes logits.

    Raises:
        UnknownName: If there is no architecture of that name.
        ModelError: If the architecture cannot be built for such images or classes.
    """
    network: nn.Module = ARCHITECTURES.get(name)(num_classes, channels, image_size)
    return network
