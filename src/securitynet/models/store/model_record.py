"""What training leaves behind: weights in ``NAME.safetensors``, and in ``NAME.json`` all that is known about them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import safetensors.torch
from pydantic import Field, ValidationError
from torch import nn

from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.errors import ModelError, SplitError
from securitynet.files import atomic_write, check_writable, file_checksum, write_json
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.fit import History, held_out
from securitynet.models.training.poisoned_dataset import Implanted
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import Protected, set_aside
from securitynet.records import DatasetIdentity, Record

FORMAT: Final = "securitynet-trained-model"


class TrainedSplit(Record):
    """Who was a member.

    Attributes:
        protocol: ``four-way`` or ``public``.
        seed: Of the split.
        known: Share of members that an adversary with partial data knows; None for the protocol's default.
        fingerprint: Of the splits as `trained_splits` makes them.
        held_out: Members of the protocol that the model was not trained on: those that early stopping validated on,
            and those that a defense set aside.
        aside: Share of the protocol's members that a defense set aside.
    """

    protocol: Literal["four-way", "public"]
    seed: int
    known: float | None = None
    fingerprint: str
    held_out: int = Field(default=0, ge=0)
    aside: float = Field(default=0.0, ge=0, lt=1)


class TrainedModel(Record):
    """All that is known about a network that was trained here.

    Attributes:
        format: Tells this file from other JSON files beside weights.
        version: Of this list of fields.
        architecture: A name in `securitynet.models.architectures.ARCHITECTURES`.
        num_classes: Number of logits.
        channels: Channels of its images.
        image_size: Height and width of its images in pixels.
        class_names: In the order of the logits.
        preprocessing: Between images in [0, 1] and the network.
        dataset: That its records are of.
        split: Who was a member.
        recipe: How it was trained, with the seed.
        defense: The defense it was trained with, and what that spent; None for none.
        implant: The backdoor that was planted in it; None for none.
        train_accuracy: On the records it was trained on, in [0, 1], in evaluation mode.
        test_accuracy: On the non-members.
        history: What happened in each epoch.
        versions: Of securitynet and torch.
        weights_checksum: SHA-256 of the weights file.
    """

    format: Literal["securitynet-trained-model"] = FORMAT
    version: Literal[1] = 1
    architecture: str
    num_classes: int
    channels: int
    image_size: int
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    dataset: DatasetIdentity
    split: TrainedSplit
    recipe: Recipe
    defense: Protected | None = None
    implant: Implanted | None = None
    train_accuracy: float = Field(ge=0, le=1)
    test_accuracy: float = Field(ge=0, le=1)
    history: History
    versions: dict[str, str]
    weights_checksum: str = ""

    @property
    def overfitting(self) -> float:
        """The overfitting level: train accuracy minus test accuracy (ML-Doctor, section 6.1)."""
        return self.train_accuracy - self.test_accuracy

    @property
    def epochs_run(self) -> int:
        """Epochs that were trained; fewer than the recipe's where it stopped early."""
        return self.history.epochs_run

    def facts(self) -> dict[str, Any]:
        """JSON form, with the values that follow from the others."""
        return {
            **self.model_dump(mode="json", exclude={"history"}),
            "overfitting": self.overfitting,
            "epochs_run": self.epochs_run,
            "history": self.history.model_dump(mode="json"),
        }


def facts_path(weights: Path) -> Path:
    """Where the facts about a weights file are: ``NAME.json`` for ``NAME.safetensors``."""
    return weights.with_suffix(".json")


def save_artefact(path: Path, module: nn.Module, trained: TrainedModel) -> TrainedModel:
    """Write weights and facts, each whole or not at all, the facts last.

    Args:
        path: Of the weights, ending in ``.safetensors``.
        module: The trained network.
        trained: The facts; their checksum is filled in.

    Returns:
        The facts as written.

    Raises:
        ModelError: If the path has another ending, or is a folder.
    """
    check_path(path)
    # Copies of their own, because safetensors refuses tensors that share memory.
    state = {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}
    with atomic_write(path) as stream:
        stream.write(safetensors.torch.save(state, metadata={"format": "pt"}))
    trained = trained.model_copy(update={"weights_checksum": file_checksum(path)})
    write_json(facts_path(path), trained.facts())
    return trained


def check_path(path: Path) -> None:
    """Raise `ModelError` or `ConfigurationError` unless weights can be written to ``path``."""
    if path.suffix != ".safetensors":
        raise ModelError(
            f"Weights are written as safetensors, and {path.name} has another ending.",
            hint=f"Write --out {path.with_suffix('.safetensors')}.",
        )
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a file to write weights to.")
    check_writable(path.parent)


def read_artefact(weights: Path) -> TrainedModel | None:
    """The facts beside a weights file; None if there are none, or the file beside it is somebody else's.

    Raises:
        ModelError: If the facts are damaged, of a newer version, or not about these weights.
    """
    weights = Path(weights)
    path = facts_path(weights)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, UnicodeDecodeError):
        return None
    if path == weights or FORMAT not in text:
        return None
    again = "Train the model again, or move that file away to load the weights without it."
    try:
        values = json.loads(text)
        if values.get("version") != 1:
            raise ModelError(f"{path} was written by another version of securitynet.", hint="Update securitynet.")
        for derived in ("overfitting", "epochs_run"):
            values.pop(derived, None)
        trained = TrainedModel.model_validate(values)
    except (ValueError, AttributeError, ValidationError) as error:
        raise ModelError(f"{path} is damaged: {str(error).splitlines()[0]}.", hint=again) from error
    if not weights.is_file():
        raise ModelError(f"{path} is there, but the weights {weights.name} that it is about are not.", hint=again)
    if file_checksum(weights) != trained.weights_checksum:
        raise ModelError(
            f"{path} is about other weights than those in {weights.name}: the checksums differ.", hint=again
        )
    return trained


def trained_splits(trained: TrainedModel, dataset: ImageDataset, *, known: float | None = None) -> Splits:
    """The splits that a model was trained with: exactly the records it saw are members.

    Members that early stopping held out trained nothing, and they chose the epoch: they are neither members nor
    non-members, and are left out. So are those that a defense set aside.

    Args:
        trained: The facts about the model.
        dataset: The one it was trained on.
        known: Share of members that the adversary knows; that stated at training by default.

    Raises:
        SplitError: If the dataset is another one, or the split does not come out as it was.
    """
    stated = trained.split
    if trained.dataset.fingerprint != dataset.fingerprint:
        raise SplitError(
            f"This model was trained on {trained.dataset.reference}, in another version than {dataset.reference} as "
            "loaded now, so its members can't be told.",
            hint="Load the dataset as it was for training (same --channels, --image-size, --limit), or choose "
            "--split public or four-way yourself.",
        )
    made = effective_splits(stated.protocol, dataset, stated.seed, stated.known, trained.recipe, stated.aside)
    if made.fingerprint != stated.fingerprint:
        raise SplitError(
            "The split that this model was trained with does not come out as it was, so its members can't be told.",
            hint="Use the version of securitynet that trained it, or train it again.",
        )
    if known is None or known == stated.known:
        return made
    return effective_splits(stated.protocol, dataset, stated.seed, known, trained.recipe, stated.aside)


def effective_splits(
    protocol: str, dataset: ImageDataset, seed: int, known: float | None, recipe: Recipe, aside: float = 0.0
) -> Splits:
    """The splits of a protocol without the members that a defense sets aside, or early stopping holds out.

    Raises:
        SplitError: If the dataset cannot be split so.
        ConfigurationError: If there is no such protocol, or no records can be held out.
    """
    made = splits.make(protocol, dataset, seed=seed, known=known)
    if not recipe.patience and not aside:
        return made
    members = made.members[set_aside(len(made.members), aside, recipe.seed)[0]]
    if recipe.patience:
        members = members[held_out(len(members), recipe)[0]]
    return replace(made, members=members, known_members=np.intersect1d(made.known_members, members))
