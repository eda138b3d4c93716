"""What an attribute attack must beat: the same attack on random weights of the same architecture, and on pixels.

Random convolutions keep much of what their input shows (Jarrett et al., ICCV 2009), so that an attribute that is
visible in the images is inferred from the embeddings of a network that was never trained.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.files import hash_stably
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.optimise import copy_network
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed
from securitynet.records import Access

VERSION = 1
"""Of how weights are drawn; part of the checksum under which embeddings are cached."""

PIXELS = 16
"""Side to which larger images are averaged before they serve as features."""

_BATCH = 1024
_ZERO = ("bias", "beta", "mean")
"""Ends of the names of what is 0 in a network that was not trained; other vectors, such as scales, are 1."""


def randomise(target: Target, seed: int) -> Target | None:
    """A target of the same architecture and preprocessing whose weights are random; queries of it are not counted.

    Matrices and kernels are drawn from normal distributions of variance 2 / fan-in (He et al., ICCV 2015), which keeps
    the size of activations from layer to layer, as batch norms may be folded away.

    Args:
        target: Under white-box access.
        seed: Of the weights.

    Returns:
        None if the target has no module that could be copied.
    """
    module = getattr(target.backend, "module", None)
    if not isinstance(module, nn.Module):
        return None
    network = copy_network(module)
    if network is None:
        return None
    draw_weights(network, seed)
    backend = ModuleBackend(
        network,
        reference=f"random weights of {target.reference}",
        checksum=hash_stably({"version": VERSION, "random weights of": target.backend.checksum, "seed": seed}, 64),
        example_shape=None,
        device=target.backend.device,
        batch_size=target.backend.batch_size,
    )
    return Target(
        backend,
        head=target.head,
        preprocessing=target.preprocessing,
        access=Access.WHITE_BOX,
        precision=target.precision,
    )


def draw_weights(network: nn.Module, seed: int) -> None:
    """Replace all weights of a network in place, and the running statistics of its batch norms; see `randomise`."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "random network"))
    running = [(name, buffer) for name, buffer in network.named_buffers() if ".running_" in f".{name}"]
    with torch.no_grad():
        for name, weights in [*network.named_parameters(), *running]:
            if not weights.is_floating_point():
                continue
            if weights.ndim < 2:
                weights.fill_(0.0 if name.endswith(_ZERO) else 1.0)
                continue
            width = weights.shape[-1] if name.endswith("kernel") else weights.shape[0]  # Keras puts outputs last
            deviation = math.sqrt(2 * width / weights.numel())
            weights.copy_(torch.randn(weights.shape, generator=generator) * deviation)


def take_pixels(dataset: ImageDataset, records: NDArray[np.int64]) -> NDArray[np.float32]:
    """Images as features, averaged to `PIXELS` a side if they are larger: N×D."""
    parts = []
    for _, images in dataset.batches(records, _BATCH):
        side = (min(PIXELS, images.shape[2]), min(PIXELS, images.shape[3]))
        parts.append(functional.adaptive_avg_pool2d(images.float() / 255, side).flatten(1).numpy())
    return np.concatenate(parts)
