"""What is known about a backdoor: a trigger to apply to images, or images of unknown origin."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from securitynet.datasets.folder import list_images
from securitynet.datasets.rendering import Rendering, render_image
from securitynet.errors import ConfigurationError, DatasetError, RefusedFile
from securitynet.records import Record
from securitynet.untrusted import check_archive, read_bytes

Corner = Literal["bottom-right", "bottom-left", "top-right", "top-left", "centre"]


class _Content(Record):
    """A file or a folder together with a digest, so that a trial's id changes when the content does.

    Attributes:
        file: Path of the file or folder.
        sha256: First 32 hexadecimal digits of the digest of the content; filled in.
    """

    file: Path | None = None
    sha256: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_content(cls, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            value = {"file": value}
        if not isinstance(value, dict) or value.get("file") is None:
            return value
        path = Path(value["file"])
        digest = _digest(path)
        if value.get("sha256") not in (None, digest):
            raise ConfigurationError(f"The content of {path.name} has changed: its digest differs from the stated one.")
        return {**value, "file": path, "sha256": digest}


class Trigger(_Content):
    """A trigger: a square patch, or a mask and a pattern in a file.

    Attributes:
        file: An ``.npz`` with ``mask`` (H×W, or C×H×W) and ``pattern`` (C×H×W, or H×W for grey images), both in [0, 1]
            or 0 to 255. The image with the trigger is (1 − mask) · image + mask · pattern.
        size: Side of the square patch in pixels, if there is no file.
        corner: Corner of the image in which the patch lies.
        margin: Pixels between the patch and the borders.
        value: Grey value of the patch, 0 to 255.
    """

    size: int | None = Field(default=None, ge=1, description="Side of a square patch in pixels.")
    corner: Corner = Field(default="bottom-right", description="Where the patch is.")
    margin: int = Field(default=0, ge=0, description="Pixels between the patch and the borders.")
    value: int = Field(default=255, ge=0, le=255, description="Grey value of the patch.")

    @model_validator(mode="after")
    def _one_kind(self) -> Trigger:
        if (self.file is None) == (self.size is None):
            raise ConfigurationError(
                "A trigger is either a file (an .npz with mask and pattern) or a patch of a given size.",
                hint="Write strip.trigger=FILE.npz, or strip.trigger.size=5.",
            )
        return self

    def blend(self, channels: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mask, 1×H×W or C×H×W in [0, 1], and the pattern, C×H×W in [0, 255], float32.

        Args:
            channels: Channels of the images.
            height: Their height in pixels.
            width: Their width in pixels.

        Raises:
            ConfigurationError: If the trigger does not fit images of this shape.
        """
        if self.file is not None:
            return _from_file(self.file, channels, height, width)
        assert self.size is not None
        if max(self.size + self.margin, 1) > min(height, width):
            raise ConfigurationError(f"A patch of {self.size} pixels does not fit into images of {height}×{width}.")
        top, left = self._place(height, width)
        mask = torch.zeros(1, height, width)
        mask[:, top : top + self.size, left : left + self.size] = 1
        return mask, torch.full((channels, height, width), float(self.value))

    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        """Apply the trigger to images, N×C×H×W uint8, and round to the nearest value."""
        mask, pattern = self.blend(*images.shape[1:])
        return torch.lerp(images.float(), pattern.expand(images.shape), mask).round().clamp(0, 255).to(torch.uint8)

    def area(self, channels: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return the pixels whose mask is at least one half, or above 0 if there are none, H×W.

        Args:
            channels: Channels of the images.
            height: Their height in pixels.
            width: Their width in pixels.
        """
        mask = self.blend(channels, height, width)[0].amax(dim=0).numpy()
        strong = mask >= 0.5
        return np.asarray(strong if strong.any() else mask > 0)

    def _place(self, height: int, width: int) -> tuple[int, int]:
        assert self.size is not None
        if self.corner == "centre":
            return (height - self.size) // 2, (width - self.size) // 2
        vertical, horizontal = self.corner.split("-")
        top = self.margin if vertical == "top" else height - self.size - self.margin
        left = self.margin if horizontal == "left" else width - self.size - self.margin
        return top, left


class Suspects(_Content):
    """Images of unknown origin: an ``.npz`` with ``images``, N×C×H×W or N×H×W uint8, or a folder of image files."""

    @model_validator(mode="after")
    def _given(self) -> Suspects:
        if self.file is None:
            raise ConfigurationError("Suspects are a folder of images, or an .npz with an array named images.")
        return self

    def load(self, channels: int, height: int, width: int) -> torch.Tensor:
        """Load the images, N×C×H×W uint8; those of a folder are resized.

        Args:
            channels: Channels of the target's images.
            height: Their height in pixels.
            width: Their width in pixels.

        Raises:
            DatasetError: If there are no images, or they can't be read.
            ConfigurationError: If an array has another shape.
        """
        assert self.file is not None
        if self.file.is_dir():
            rendering = Rendering(channels, height, width, resize=True)
            paths = list_images(self.file).images
            if not paths:
                raise DatasetError(f"There are no images in {self.file.name}.")
            return torch.from_numpy(np.stack([render_image(path, path.name, rendering) for path in paths]))
        (images,) = _arrays(self.file, ("images",))
        images = images[:, None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[1:] != (channels, height, width) or not len(images):
            raise ConfigurationError(
                f"{self.file.name} holds images of shape {images.shape}; N×{channels}×{height}×{width} is expected."
            )
        return torch.from_numpy(np.round(_bytes(images)).astype(np.uint8))


def _from_file(path: Path, channels: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask, pattern = _arrays(path, ("mask", "pattern"))
    mask, pattern = (array[None] if array.ndim == 2 else array for array in (mask, pattern))
    for name, array, allowed in (("mask", mask, (1, channels)), ("pattern", pattern, (channels,))):
        if array.ndim != 3 or array.shape[0] not in allowed or array.shape[1:] != (height, width):
            raise ConfigurationError(
                f"{path.name}: {name} has shape {array.shape}; the images are {channels}×{height}×{width}."
            )
    blended = torch.from_numpy(_bytes(mask) / 255)
    return blended.float(), torch.from_numpy(_bytes(pattern)).float()


def _bytes(array: NDArray[Any]) -> NDArray[np.float64]:
    """Convert values to the scale of 0 to 255: uint8 is unchanged, floats and booleans are scaled from [0, 1].

    Raises:
        ConfigurationError: If floats lie outside [0, 1], or the type is another one.
    """
    if array.dtype == np.uint8:
        return array.astype(np.float64)
    if array.dtype != np.bool_ and not np.issubdtype(array.dtype, np.floating):
        raise ConfigurationError(f"Arrays of triggers and images are uint8 or floating point, not {array.dtype}.")
    values = array.astype(np.float64)
    if not (values.min() >= 0 and values.max() <= 1):  # also if NaN
        raise ConfigurationError("Floating-point arrays of triggers and images must lie in [0, 1].")
    return values * 255


def _arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            if not missing:
                return [archive[name] for name in names]
            held = ", ".join(archive.files) or "nothing"
    except RefusedFile:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds on files that are no archives
        raise ConfigurationError(f"{path.name} can't be read as an .npz file of plain arrays.") from error
    raise ConfigurationError(f"{path.name} has no array named {' and none named '.join(missing)}; it holds {held}.")


def _digest(path: Path) -> str:
    """Return 32 hexadecimal digits of the digest of a file, or of the names and contents of the images in a folder."""
    if path.is_dir():
        digest = hashlib.sha256()
        for image in list_images(path).images:
            digest.update(image.relative_to(path).as_posix().encode() + b"\0" + image.read_bytes())
        return digest.hexdigest()[:32]
    try:
        content = read_bytes(path)
        if path.suffix == ".npz" and zipfile.is_zipfile(path):
            check_archive(path)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror or error}.") from error
    if path.suffix == ".npz":  # archives contain dates, so only the arrays are hashed
        return _archive_digest(path, content)
    return hashlib.sha256(content).hexdigest()[:32]


def _archive_digest(path: Path, content: bytes) -> str:
    digest = hashlib.sha256()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            for name in sorted(archive.files):
                array = np.ascontiguousarray(archive[name])
                digest.update(f"{name}/{array.dtype.str}/{array.shape}".encode() + array.tobytes())
    except Exception as error:  # see `_arrays`
        raise ConfigurationError(f"{path.name} can't be read as an .npz file of plain arrays.") from error
    return digest.hexdigest()[:32]
