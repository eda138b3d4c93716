"""How a dataset is read, as options of the command line and of study files. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _named_for_loading(value: Any) -> Any:
    """The name by which a dataset is loaded, where the catalog's is given."""
    from securitynet.datasets.references import name_for_loading

    return name_for_loading(value) if isinstance(value, str) else value


DatasetName = Annotated[str, BeforeValidator(_named_for_loading)]
"""A reference of a dataset; ``CIFAR-10``, as the catalog writes it, becomes ``cifar10``."""


class ImageOptions(BaseModel):
    """Which files of a dataset are used, and how images are rendered. The description of each field is its help text.

    Attributes:
        resize: Pixels to which the shorter side of each image is resized.
        crop: Side in pixels of the square cut out of the centre.
        interpolation: Method of resizing.
        image_column: Column of the images in a ``parquet:`` dataset.
        label_column: Column of the labels in a ``parquet:`` dataset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Resize images in proportion, to this many pixels on the shorter side, as the model was tested.",
    )
    crop: int | None = Field(
        default=None, ge=1, le=4096, description="Cut a square of this many pixels out of the centre, after --resize."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = Field(
        default=None, description="How images are resized, antialiased; default: bilinear."
    )
    image_column: str | None = Field(
        default=None, description="Column of the images in parquet:PATH, such as img. Default: image, or the only one."
    )
    label_column: str | None = Field(
        default=None, description="Column of the labels, such as fine_label. Default: label, or the only one."
    )


def _listed(value: Any) -> Any:
    """Convert masks and indices in arrays and tensors to lists; text is a path."""
    if isinstance(value, str):
        return Path(value)
    return value.tolist() if hasattr(value, "tolist") else value


StatedMembers = Annotated[Path | tuple[bool | int | str, ...] | None, BeforeValidator(_listed)]
"""A file that lists records; in Python also a boolean mask, or numbers or names of records."""

_NAMES = {"image_size": "size", "data_root": "root"}
_OF_LOAD = (
    "channels",
    "image_size",
    "resize",
    "crop",
    "interpolation",
    "image_column",
    "label_column",
    "members",
    "non_members",
    "limit",
    "data_root",
)


def load_options(config: BaseModel, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keyword arguments of `securitynet.datasets.load` among the fields of a configuration."""
    names = [name for name in _OF_LOAD if name in type(config).model_fields and name not in leave_out]
    return {_NAMES.get(name, name): getattr(config, name) for name in names}
