"""What is written beside the weights of a stored model; see `securitynet.models.store.cached_model`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from securitynet.errors import ModelError
from securitynet.files import file_checksum, stable_hash
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.fit import History
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import Protected
from securitynet.records import Record

FORMAT: Final = "securitynet-stored-model"


class StoredFacts(Record):
    """What ``weights.json`` says.

    Attributes:
        format: Tells this file from other JSON files.
        version: Of this list of fields, and of the code that trains: raising it retires all stored models.
        dataset: Fingerprint of the dataset of the images.
        training_set: SHA-256 of the indices of the training records, in their order.
        targets: SHA-256 of the labels or posteriors that they were trained on.
        soft: Whether those were posteriors.
        records: How many records there are.
        architecture: Name in the registry, or a reference such as ``timm:resnet18``.
        num_classes: Number of logits.
        channels: Channels of the images.
        image_size: Height and width of the images.
        recipe: With its seed and its version.
        defense: The defense it was trained with, and what that spent; None for none.
        aside: SHA-256 of the indices of records that the defense took for something else, where they were given and
            are none of the training records; empty otherwise.
        preprocessing: Between images in [0, 1] and the network.
        history: What happened in each epoch.
        weights_checksum: SHA-256 of the weights file.
    """

    format: Literal["securitynet-stored-model"] = FORMAT
    version: Literal[1] = 1
    dataset: str
    training_set: str
    targets: str
    soft: bool
    records: int
    architecture: str
    num_classes: int
    channels: int
    image_size: int
    recipe: Recipe
    defense: Protected | None = None
    aside: str = ""
    preprocessing: Preprocessing
    history: History = History()
    weights_checksum: str = ""

    @property
    def key(self) -> str:
        """Name of its folder: a digest of all that decides its weights."""
        values = self.model_dump(mode="json", exclude={"history", "weights_checksum", "defense", "aside"})
        if self.defense is not None:  # keys stay what they were before there were defenses
            asked = self.defense.model_dump(mode="json", include={"name", "settings"})
            values["defense"] = {**asked, "aside": self.aside}
        return stable_hash(values)


def read_facts(weights: Path) -> StoredFacts | None:
    """The facts beside the weights of a stored model; None if there are none, or the file is somebody else's.

    Raises:
        ModelError: If they are damaged, or not about these weights.
    """
    path = Path(weights).with_suffix(".json")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if path == Path(weights) or FORMAT not in text:
        return None
    try:
        facts = StoredFacts.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(f"{path} is damaged: {str(error).splitlines()[0]}.", hint="Train the model again.") from error
    if file_checksum(Path(weights)) != facts.weights_checksum:
        raise ModelError(f"{path} is about other weights than those in {Path(weights).name}: the checksums differ.")
    return facts
