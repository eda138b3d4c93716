"""Layers that are computed from training images, such as the whitening layer of airbench."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.batches import Feed

_IMAGES = 5000
_PIXELS = _IMAGES * 32 * 32
"""Of larger images fewer are taken, so that they fit into memory."""


def list_layers_from_images(module: nn.Module) -> list[Any]:
    """The network or its layers that have a method ``initialise_from_images``."""
    return [layer for layer in module.modules() if hasattr(layer, "initialise_from_images")]


def initialise_from_images(module: nn.Module, feed: Feed, preprocessing: Preprocessing) -> None:
    """Give some training images to all layers that are computed from them.

    They are spread evenly over the records: datasets may be sorted by class.

    Args:
        module: The network, on the feed's device.
        feed: The training records.
        preprocessing: Applied to images before the network.
    """
    layers = list_layers_from_images(module)
    if not layers:
        return
    height, width = feed.fetch(torch.zeros(1, dtype=torch.int64)).shape[2:]
    count = min(len(feed), max(1, min(_IMAGES, _PIXELS // (height * width))))
    images = preprocessing(feed.fetch(torch.arange(count) * len(feed) // count))
    for layer in layers:
        layer.initialise_from_images(images)
