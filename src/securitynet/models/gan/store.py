"""The content-addressed store of DCGANs: each is trained once for its data, for all targets it is used against."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import check_digest, hash_stably
from securitynet.models.gan.networks import Discriminator, GANGenerator
from securitynet.models.gan.options import GANTraining
from securitynet.models.gan.training import GANHistory, build_networks, train_gan
from securitynet.models.sources.weights import read_state_dict
from securitynet.models.store.cached_model import WEIGHTS, check_images, find_stored, lock_folder
from securitynet.models.store.model_record import ModelRecord
from securitynet.models.store.record_files import save_trained_model
from securitynet.models.training.batches import Feed
from securitynet.models.training.checkpoints import CheckpointFile
from securitynet.untrusted import parse_json, read_bytes

logger = logging.getLogger(__name__)

RECORD = "gan.json"
_PREFIXES = ("generator.", "discriminator.")

FEWEST_IMAGES = 16
"""Images that a GAN needs at least."""


class GANRecord(ModelRecord):
    """The record of a GAN, in ``gan.json``.

    Attributes:
        format: Distinguishes this file from other JSON files.
        dataset: Fingerprint of the dataset.
        training_set: SHA-256 of the sorted indices of the training records.
        records: Number of training records.
        image_shape: (channels, height, width).
        training: How it was trained, with the version of the trainer.
        seed: Seed of all randomness.
        history: How the training went.
    """

    format: Literal["securitynet-gan"] = "securitynet-gan"
    dataset: str
    training_set: str
    records: int
    image_shape: tuple[int, int, int]
    training: GANTraining
    seed: int
    history: GANHistory = GANHistory()

    @property
    def membership(self) -> str:
        """Digest of the dataset and of the records that are members."""
        return hash_stably([self.dataset, self.training_set])

    def decisive(self) -> dict[str, Any]:
        """The fields that determine the weights; previews do not."""
        values = super().decisive()
        del values["training"]["previews"]
        return values


def make_gan_record(dataset: ImageDataset, indices: NDArray[np.int64], training: GANTraining, seed: int) -> GANRecord:
    """The record of a GAN as known before its training.

    Args:
        dataset: The dataset.
        indices: Sorted training records, N int64.
        training: How to train.
        seed: Seed of all randomness.
    """
    return GANRecord(
        dataset=dataset.fingerprint,
        training_set=hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        records=len(indices),
        image_shape=dataset.image_shape,
        training=training,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class GAN:
    """A trained DCGAN, frozen.

    Attributes:
        generator: From noise, N×latent, to images in [0, 1]; its batch norms are folded.
        discriminator: From images to logits, in evaluation mode.
        key: Name in the store, for the keys of results computed with it.
        history: History of its training.
        previews: Folder with the sample grids; None if nothing is stored.
    """

    generator: GANGenerator
    discriminator: Discriminator
    key: str
    history: GANHistory
    previews: Path | None

    @property
    def latent(self) -> int:
        """Dimensions of the noise."""
        return self.generator.latent


def obtain_gan(
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    training: GANTraining,
    *,
    seed: int = 0,
    cache: Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> GAN:
    """Load the DCGAN for these records from the store, or train it (or resume its training) if it is not there.

    Its folder ``gans/KEY`` holds the weights, ``gan.json`` and, in ``samples``, sample grids from its training.

    Args:
        dataset: A dataset with images of at least 8 pixels a side, grey or colour.
        indices: Sorted training records, N int64, at least `FEWEST_IMAGES`.
        training: How to train.
        seed: Seed of all randomness.
        cache: Folder of the store; None stores nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; where it is trained and left. It is not part of the key.
        progress: Called with (steps done, total steps).

    Raises:
        ConfigurationError: If there are no images, or too few.
        ModelError: If the images are too small, or the training diverges.
    """
    check_images(dataset)
    if len(indices) < FEWEST_IMAGES:
        raise ConfigurationError(
            f"{len(indices)} images are too few to train a GAN on; {FEWEST_IMAGES} are the least.",
            hint="Use a larger dataset, or the attack of Fredrikson, which needs no data.",
        )
    channels, *sides = dataset.image_shape
    record = make_gan_record(dataset, indices, training, seed)
    networks = build_networks(training, channels, (sides[0], sides[1]), seed)
    place = resolve_device(device)
    folder = None if cache is None else cache / "gans" / record.key

    with lock_folder(folder):
        stored = find_stored(folder, record, functools.partial(_put_weights, networks), RECORD)
        if stored is None:
            networks, stored = _train(networks, dataset, indices, record, folder, place, progress)
    made, judge = networks
    judge.to(place).eval().requires_grad_(False)
    samples = None if folder is None else folder / "samples"
    return GAN(made.to(place).folded(), judge, record.key, stored.history, samples)


def load_gan(folder: Path, image_shape: tuple[int, int, int], *, device: str = "auto") -> GAN:
    """Load a DCGAN that `obtain_gan` trained before, on whatever data.

    Args:
        folder: Its folder, with ``gan.json`` and the weights.
        image_shape: The shape (channels, height, width) that its images must have.
        device: Where it is put.

    Raises:
        ModelError: If it cannot be read, or generates images of another shape.
    """
    try:
        record = GANRecord.model_validate(check_digest(parse_json(read_bytes(folder / RECORD))))
        channels, *sides = record.image_shape
        if record.image_shape != image_shape:
            raise ModelError(
                f"The GAN in {folder} makes images of {'×'.join(map(str, record.image_shape))}; those of the dataset "
                f"are {'×'.join(map(str, image_shape))}.",
                hint="Train it on images of this shape.",
            )
        networks = build_networks(record.training, channels, (sides[0], sides[1]), record.seed)
        _put_weights(networks, read_state_dict(folder / WEIGHTS)[0])
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The GAN in {folder} cannot be read: {str(error).splitlines()[0]}") from error
    place = resolve_device(device)
    made, judge = networks
    judge.to(place).eval().requires_grad_(False)
    return GAN(made.to(place).folded(), judge, record.key, record.history, None)


def _put_weights(networks: tuple[GANGenerator, Discriminator], state: Mapping[str, torch.Tensor]) -> None:
    for prefix, network in zip(_PREFIXES, networks, strict=True):
        network.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})


def _train(
    networks: tuple[GANGenerator, Discriminator],
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    record: GANRecord,
    folder: Path | None,
    place: torch.device,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[GANGenerator, Discriminator], GANRecord]:
    images = dataset.images
    assert images is not None  # `check_images` has raised otherwise
    checkpoint = None if folder is None else CheckpointFile(folder / "checkpoint", logger.info)
    made, history = train_gan(
        networks,
        Feed(images, indices, place),
        record.training,
        record.seed,
        place,
        checkpoint=checkpoint,
        fingerprint=record.key,
        previews=None if folder is None else folder / "samples",
        progress=progress,
    )
    trained = made, networks[1]
    record = record.model_copy(update={"history": history})
    if folder is not None and checkpoint is not None:
        state = {
            prefix + name: value
            for prefix, network in zip(_PREFIXES, trained, strict=True)
            for name, value in network.state_dict().items()
        }
        record = save_trained_model(folder / WEIGHTS, state, record, folder / RECORD)
        checkpoint.remove()
    return trained, record
