"""`ExposureConfig`: the configuration of the `exposure` command; importing it loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from securitynet.datasets.options import ImageOptions
from securitynet.models.training.config import Commas
from securitynet.records import Record


class ExposureConfig(ImageOptions, Record):
    """The configuration of `securitynet exposure`. The description of each field is its help on the command line."""

    weights: Path = Field(description="Weights file that `securitynet train` wrote, NAME.safetensors.")
    dataset: str | None = Field(
        default=None, description="Dataset of the training, read as it was then. Default: the one in the model record."
    )
    architecture: str | None = Field(
        default=None, description="Architecture of the training, if it is python:FILE:FACTORY. Default: as recorded."
    )
    channels: Literal[1, 3] | None = Field(default=None, description="Convert images to grey (1) or colour (3).")
    image_size: int | None = Field(default=None, ge=1, description="Stretch images to this height and width in pixels.")
    data_root: Path | None = Field(default=None, description="Folder of the dataset's files.")
    limit: int | None = Field(default=None, ge=1, description="Use at most this many records of each part.")
    shadows: int = Field(
        default=16,
        ge=8,
        description="Number of shadow models; each takes the role of the target in turn. Those that LiRA trained in an "
        "assessment are used again.",
    )
    fpr: float = Field(default=0.01, gt=0, lt=1, description="False-positive rate at which a member is identified.")
    top_share: float = Field(
        default=0.01, gt=0, lt=1, description="Share of a model's members that counts as most exposed."
    )
    by: Annotated[tuple[str, ...], Commas] = Field(
        default=(),
        description="Attributes to compare by, separated by commas. Default: all, and the class.",
    )
    retrain_without: str | None = Field(
        default=None,
        description="Records to remove: a file with one a line, as for --members, or numbers separated by commas. The "
        "model is trained again without them, and once more without as many others as a control.",
    )
    level: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence level.")
    seed: int = Field(default=0, ge=0, description="Seed of the shadow models and of the control.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    cache: Path | None = Field(default=None, description="Folder of stored shadow models. Default: the cache folder.")
    out: Path | None = Field(
        default=None, description="Folder for exposure.json and exposure.csv, which lists every member."
    )
