"""`AuditConfig`: the configuration of the `audit` command; importing it loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from securitynet.datasets.options import ImageOptions
from securitynet.records import Record


class AuditConfig(ImageOptions, Record):
    """The configuration of an audit. The description of each field is its help on the command line."""

    weights: Path = Field(description="Weights file that `securitynet train --canaries N` wrote, NAME.safetensors.")
    dataset: str | None = Field(
        default=None, description="Dataset of the training, read as it was then. Default: the one in the model record."
    )
    canary_images: str | None = Field(
        default=None, description="Dataset of your own canaries, if it has moved since the training."
    )
    architecture: str | None = Field(
        default=None, description="Architecture of the training, if it is python:FILE:FACTORY. Default: as recorded."
    )
    channels: Literal[1, 3] | None = Field(default=None, description="Convert images to grey (1) or colour (3).")
    image_size: int | None = Field(default=None, ge=1, description="Stretch images to this height and width in pixels.")
    data_root: Path | None = Field(default=None, description="Folder of the dataset's files.")
    limit: int | None = Field(default=None, ge=1, description="Use at most this many records of each part.")
    delta: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Delta of the bounds on epsilon. Default: that of DP-SGD in the model record, else 1e-5.",
    )
    level: float = Field(default=0.95, gt=0, lt=1, description="Confidence level of the verdict.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    out: Path | None = Field(default=None, description="File to write the result to, as JSON. Default: none.")
