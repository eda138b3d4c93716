"""`TrainConfig`: the configuration of the `train` command and of `train_model`; importing it loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from securitynet.datasets.options import DatasetName, ImageOptions
from securitynet.files import expand_home, find_data_folder, hash_stably
from securitynet.models.training.presets import RECIPES, RecipeName, get_recipe_fields
from securitynet.models.training.recipe import Recipe, RecipeOptions
from securitynet.records import Record


def _split_commas(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


Commas = BeforeValidator(_split_commas)


class _TargetOptions(ImageOptions, Record):
    """The target to train, its dataset and its file. The description of each field is its help on the command line."""

    architecture: str = Field(
        description="Architecture to train: a name from `securitynet list architectures`, timm:NAME, torchvision:NAME, "
        "pytorchcv:NAME or python:FILE:FACTORY."
    )
    dataset: DatasetName = Field(description="Dataset to train on; see `securitynet list datasets`.")
    out: Path | None = Field(
        default=None,
        description="Weights file to write, NAME.safetensors; the model record goes to NAME.json beside it. "
        "Default: a name derived from these settings, in the user's data folder.",
    )
    # Not part of what is stored: the fields that it sets are.
    recipe: RecipeName = Field(
        default="ml-doctor",
        exclude=True,
        description="Recipe that sets the options below; those that you give override it. ml-doctor is the paper's; "
        "fast trains a good model in little time (see docs/train.md).",
    )
    defense: str | None = Field(
        default=None, description="Defense to train with; see `securitynet list defenses`. Default: none."
    )
    backdoor: str | None = Field(
        default=None,
        validation_alias=AliasChoices("backdoor", "implant"),
        description="Backdoor to train with, to measure detection; see `securitynet list backdoors`.",
    )
    canaries: int | None = Field(
        default=None,
        ge=10,
        description="Number of canaries for `securitynet audit`: records of the training set are replaced with them, "
        "and a fair coin decides for each whether it is trained on. Default: none.",
    )
    canary_kind: Literal["mislabelled", "natural", "out-of-distribution", "own"] = Field(
        default="mislabelled",
        description="Canaries: records with a wrong label, unchanged records, uniform noise with random labels, or the "
        "images of --canary-images.",
    )
    canary_images: str | None = Field(
        default=None, description="Dataset with images and labels of your own canaries, for --canary-kind own."
    )
    configure: Annotated[tuple[str, ...], Commas] = Field(
        default=(),
        description="Settings of the defense or the backdoor as NAME.FIELD=VALUE, separated by commas, such as "
        "dp-sgd.epsilon=8.",
    )
    split: Literal["four-way", "public"] = Field(
        default="four-way",
        description="Split protocol: the model is trained on the members and tested on the non-members.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of the split.")
    known: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the members that an adversary with partial data will know; default: as in the protocol's "
        "paper.",
    )
    channels: Literal[1, 3] | None = Field(default=None, description="Convert images to grey (1) or colour (3).")
    image_size: int | None = Field(default=None, ge=1, description="Stretch images to this height and width in pixels.")
    data_root: Path | None = Field(default=None, description="Folder of the dataset's files.")
    limit: int | None = Field(default=None, ge=1, description="Use at most this many records of each part.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    keep_losses: bool = Field(
        default=False,
        description="Store the loss of each training record after each epoch beside the weights, in "
        "NAME.losses.safetensors, for `securitynet exposure`.",
    )
    overwrite: bool = Field(default=False, description="Replace a file that holds another model.")


# The order of the bases puts the target before the recipe in the help text.
class TrainConfig(RecipeOptions, _TargetOptions):
    """The configuration of one training: a target and a recipe."""

    @model_validator(mode="before")
    @classmethod
    def _take_fields_of_recipe(cls, values: Any) -> Any:
        name = values.get("recipe") if isinstance(values, dict) else None
        if not isinstance(name, str) or name not in RECIPES:
            return values
        return {**get_recipe_fields(name, str(values.get("architecture"))), **values}

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe that these settings describe."""
        return Recipe(**{name: getattr(self, name) for name in RecipeOptions.model_fields})

    @property
    def weights_file(self) -> Path:
        """Path of the weights file."""
        if self.out is not None:
            return expand_home(self.out)
        settings = self.model_dump(mode="json", exclude={"out", "device", "overwrite", "data_root", "keep_losses"})
        if not self.configure:
            del settings["configure"]  # keeps file names from before this setting existed
        if self.canaries is None:
            for name in ("canaries", "canary_kind", "canary_images"):
                del settings[name]  # likewise
        backdoor = settings.pop("backdoor")
        if backdoor is not None:
            settings["implant"] = backdoor  # the key under which file names were first derived
        for name in ImageOptions.model_fields:
            if settings[name] is None:
                del settings[name]  # keeps file names from before this setting existed
        dataset = "".join(c if c.isalnum() else "-" for c in self.dataset)[-40:].strip("-")
        architecture = "".join(c if c.isalnum() or c in "-_.@" else "-" for c in self.architecture)[-40:].strip("-.")
        name = f"{architecture}-{dataset}-{hash_stably(settings, 8)}.safetensors"
        return find_data_folder() / "models" / name
