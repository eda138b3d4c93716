"""Digests that show whether a checkpoint belongs to a run."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securitynet.datasets.base import Images
from securitynet.files import hash_stably
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.weights import state_checksum
from securitynet.models.training.recipe import Recipe


def hash_images(images: Images, indices: NDArray[np.int64] | None, preprocessing: Preprocessing) -> str:
    """SHA-256 of the selected images and of their preprocessing.

    Args:
        images: N×C×H×W.
        indices: The selected images, int64.
        preprocessing: Applied to images before the network.
    """
    digest = hashlib.sha256(repr((tuple(images.shape), preprocessing.canonical())).encode())
    indices = np.arange(images.shape[0], dtype=np.int64) if indices is None else indices
    for start in range(0, len(indices), 4096):
        batch = images[torch.from_numpy(indices[start : start + 4096])]
        digest.update(batch.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def compute_run_fingerprint(
    recipe: Recipe, data: str, indices: NDArray[np.int64], targets: torch.Tensor, held: str, module: nn.Module
) -> str:
    """32 hexadecimal digits over everything that determines a run's weights.

    Args:
        recipe: The recipe, with its seed.
        data: Digest of the images.
        indices: Training records, int64.
        targets: Targets of these records, on the CPU.
        held: Digest of the validation records; empty if there are none.
        module: The network with its initial weights.
    """
    return hash_stably(
        {
            "recipe": recipe.model_dump(mode="json"),
            "data": data,
            "indices": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
            "targets": hash_tensor(targets),
            "validation": held,
            "weights": state_checksum(module.state_dict(), type(module).__qualname__),
        }
    )


def hash_tensor(values: torch.Tensor) -> str:
    """SHA-256 of the values of a tensor."""
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
