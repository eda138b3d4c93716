"""The content-addressed store of DCGANs: one is trained once for its data, whatever targets it is used against."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.locks import exclusive
from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError
from securitynet.files import atomic_write, file_checksum, stable_hash, write_json
from securitynet.models.gan.networks import Discriminator, Generator
from securitynet.models.gan.options import GANTraining
from securitynet.models.gan.training import GANHistory, initial_networks, train
from securitynet.models.shadows.store import check_images
from securitynet.models.sources.weights import read_state_dict
from securitynet.models.training.batches import Feed
from securitynet.models.training.checkpoints import CheckpointFile
from securitynet.records import Record

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 16
"""Images that a GAN needs at least."""


class GANFacts(Record):
    """What ``gan.json`` says.

    Attributes:
        format: Tells this file from other JSON files.
        version: Of this list of fields.
        dataset: Fingerprint of the dataset.
        training_set: SHA-256 of the sorted indices of the training records.
        records: How many there are.
        image_shape: (channels, height, width).
        training: How, with the version of the trainer.
        seed: Of all randomness.
        history: How the training went.
        weights_checksum: SHA-256 of the weights file.
    """

    format: Literal["securitynet-gan"] = "securitynet-gan"
    version: Literal[1] = 1
    dataset: str
    training_set: str
    records: int
    image_shape: tuple[int, int, int]
    training: GANTraining
    seed: int
    history: GANHistory = GANHistory()
    weights_checksum: str = ""

    @property
    def key(self) -> str:
        """Name of its folder: a digest of all that decides its weights; previews do not."""
        facts = self.model_dump(mode="json", exclude={"history", "weights_checksum"})
        del facts["training"]["previews"]
        return stable_hash(facts)


@dataclass(frozen=True, eq=False)
class GAN:
    """A trained DCGAN, frozen.

    Attributes:
        generator: Noise N×latent to images in [0, 1], its batch norms folded.
        discriminator: Images to logits, evaluating.
        key: Name in the store, for the keys of what is made with it.
        history: Of its training.
        previews: Folder with the sample grids; None if nothing is kept.
    """

    generator: Generator
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
    """The DCGAN trained on these records: from the store if it is there, else trained now (or trained on).

    Its folder ``gans/KEY`` holds the weights, ``gan.json`` and, in ``samples``, grids of what it made on the way.

    Args:
        dataset: With square images of 8 pixels a side or more, grey or colour.
        indices: Sorted training records, at least `FEWEST_IMAGES`.
        training: How.
        seed: Of all randomness.
        cache: Folder of the store; None keeps nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; where it is trained and left. It is not part of the key.
        progress: Called with (steps done, steps in all).

    Raises:
        ConfigurationError: If there are no images, or too few.
        ModelError: If the images are not square or too small, or the training diverges.
    """
    check_images(dataset)
    if len(indices) < FEWEST_IMAGES:
        raise ConfigurationError(
            f"{len(indices)} images are too few to train a GAN on; {FEWEST_IMAGES} are the least.",
            hint="Use a larger dataset, or the attack of Fredrikson, which needs no data.",
        )
    channels, size, _ = dataset.image_shape
    facts = GANFacts(
        dataset=dataset.fingerprint,
        training_set=hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        records=len(indices),
        image_shape=dataset.image_shape,
        training=training,
        seed=seed,
    )
    networks = initial_networks(training, channels, size, seed)
    place = resolve_device(device)
    folder = None if cache is None else cache / "gans" / facts.key
    with contextlib.nullcontext() if folder is None else exclusive(folder / "lock"):
        found = None if folder is None else _read(folder, facts, networks)
        if found is None:
            networks, found = _train(networks, dataset, indices, facts, folder, place, progress)
    made, judge = networks
    judge.to(place).eval().requires_grad_(False)
    samples = None if folder is None else folder / "samples"
    return GAN(made.to(place).folded(), judge, facts.key, found.history, samples)


def _train(
    networks: tuple[Generator, Discriminator],
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    facts: GANFacts,
    folder: Path | None,
    place: torch.device,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[Generator, Discriminator], GANFacts]:
    images = dataset.images
    assert images is not None  # `check_images` has raised otherwise
    checkpoint = None if folder is None else CheckpointFile(folder / "checkpoint", logger.info)
    made, history = train(
        networks,
        Feed(images, indices, place),
        facts.training,
        facts.seed,
        place,
        checkpoint=checkpoint,
        fingerprint=facts.key,
        previews=None if folder is None else folder / "samples",
        progress=progress,
    )
    trained = made, networks[1]
    facts = facts.model_copy(update={"history": history})
    if folder is None or checkpoint is None:
        return trained, facts
    weights = folder / "weights.safetensors"
    with atomic_write(weights) as stream:
        stream.write(safetensors.torch.save(_joined(trained), metadata={"format": "pt"}))
    facts = facts.model_copy(update={"weights_checksum": file_checksum(weights)})
    write_json(folder / "gan.json", facts.model_dump(mode="json"))
    checkpoint.remove()
    return trained, facts


def _read(folder: Path, wanted: GANFacts, networks: tuple[Generator, Discriminator]) -> GANFacts | None:
    """Put the stored weights into the networks; None if they are absent or damaged (which is logged)."""
    try:
        facts = GANFacts.model_validate(json.loads((folder / "gan.json").read_text(encoding="utf-8")))
        weights = folder / "weights.safetensors"
        if facts.key == wanted.key and file_checksum(weights) == facts.weights_checksum:
            state = read_state_dict(weights)[0]
            for prefix, network in zip(_PREFIXES, networks, strict=True):
                own = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
                network.load_state_dict(own)
            return facts
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        logger.debug("%s: %s", folder.name, error)
    logger.warning("A stored GAN is damaged and is trained again: %s", folder.name)
    return None


_PREFIXES = ("generator.", "discriminator.")


def _joined(networks: tuple[Generator, Discriminator]) -> dict[str, torch.Tensor]:
    return {
        prefix + name: value.detach().cpu().clone().contiguous()
        for prefix, network in zip(_PREFIXES, networks, strict=True)
        for name, value in network.state_dict().items()
    }
