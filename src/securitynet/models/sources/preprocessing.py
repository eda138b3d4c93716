"""From an image in [0, 1] to a model's input: resizing, cropping, normalisation, in batches on the device."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, FiniteFloat, PositiveInt, SerializerFunctionWrapHandler, field_validator, model_serializer
from torch.nn import functional

from securitynet.errors import ConfigurationError
from securitynet.records import Record

Constants = tuple[tuple[float, ...], tuple[float, ...]]

_COLOUR = 3

CONVENTIONS: dict[str, Constants] = {
    "none": ((), ()),
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    # Deviations averaged over images, not computed over all pixels: a mistake in many public training scripts.
    "cifar10-per-image": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,), (0.3081,)),
    "fmnist": ((0.2860,), (0.3530,)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "bytes": ((0.0,), (1 / 255,)),
    # Caffe's convention: values in 0 to 255 minus the mean of ImageNet. Its own networks take BGR: "caffe-bgr".
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
}
"""Usual (mean, deviation) pairs by name, for images in [0, 1]. ``bytes`` feeds values in 0 to 255."""

BGR = "-bgr"
"""Ending of the names of conventions whose inputs have their channels in the order blue, green, red (OpenCV, Caffe)."""

ChannelOrder = Literal["rgb", "bgr"]


class Normalization(NamedTuple):
    """A normalisation as ``--normalize`` states it.

    Attributes:
        mean: Mean of red, green and blue, whatever the channel order; empty for no normalisation.
        std: Deviation, likewise.
        channel_order: Order in which the network takes the channels, ``rgb`` or ``bgr``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: ChannelOrder = "rgb"

    @property
    def constants(self) -> Constants:
        """Mean and deviation as a pair."""
        return self.mean, self.std


class Preprocessing(Record):
    """Resizes, crops and normalises images.

    Attributes:
        mean: One value per channel, or one for all channels, or empty for no normalisation.
        std: Likewise; each positive.
        input_size: Height and width of the model's input; None keeps the images' own size.
        crop_share: The input is the centre of an image whose shorter side is ``input_size / crop_share``
            (timm's ``crop_pct``); None resizes the whole image to ``input_size``.
        interpolation: Used for resizing, always antialiased.
        channel_order: Order in which a network takes the channels of a colour image. ``mean`` and ``std`` always belong
            to red, green and blue.
    """

    mean: tuple[FiniteFloat, ...] = ()
    std: tuple[FiniteFloat, ...] = ()
    input_size: tuple[PositiveInt, PositiveInt] | None = None
    crop_share: float | None = Field(default=None, gt=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channel_order: ChannelOrder = "rgb"

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(v <= 0 for v in value):
            raise ValueError("deviations must be positive")
        return value

    def canonical(self) -> dict[str, Any]:
        """JSON form for identities."""
        return self.model_dump(mode="json")

    @model_serializer(mode="wrap")
    def _without_usual_order(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Identities and keys of stored models are older than this option.
        values: dict[str, Any] = serialize(self)
        if self.channel_order == "rgb":
            values.pop("channel_order", None)
        return values

    def describe(self) -> str:
        """A short description: the convention's name if it is a common one."""
        named = [name for name, pair in CONVENTIONS.items() if pair == (self.mean, self.std)]
        words = "no normalisation" if not self.mean else f"normalised by {named[0] if named else self._numbers()}"
        if self.channel_order == "bgr":
            words += ", channels in the order BGR"
        if self.input_size:
            words += f", input {self.input_size[0]}×{self.input_size[1]}"
        return words

    def constants(self) -> str:
        """The normalisation as ``--normalize`` takes it: ``M,M,M/S,S,S`` or ``none``, with ``-bgr`` if reversed."""
        return (self._numbers() if self.mean else "none") + (BGR if self.channel_order == "bgr" else "")

    def _numbers(self) -> str:
        return "/".join(",".join(f"{v:g}" for v in values) for values in (self.mean, self.std))

    def normalized_by(self, normalization: Normalization) -> Preprocessing:
        """Copy the preprocessing with another normalisation and channel order."""
        return self.model_copy(update=normalization._asdict())

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Convert images to model inputs.

        Args:
            images: N×C×H×W, uint8 in 0 to 255 or floating point in [0, 1]. Gradients flow through the latter.

        Returns:
            float32, N×C×h×w.

        Raises:
            ConfigurationError: If the number of means differs from the number of channels.
        """
        if self.mean and len(self.mean) not in (1, images.shape[1]):
            # Broadcasting would turn a grey image into three channels.
            raise ConfigurationError(
                f"The normalisation has {len(self.mean)} means; the images have {images.shape[1]} channels.",
                hint="Choose another --normalize, or convert the images with --channels.",
            )
        images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
        if self.input_size and tuple(images.shape[-2:]) != self.input_size:
            images = self._resize(images, self.input_size)
        if self.mean:
            offset, factor = _affine(self.mean, self.std, images.dtype, images.device)
            images = torch.addcmul(offset, images, factor)
        return images.flip(1) if self.channel_order == "bgr" and images.shape[1] == _COLOUR else images

    def _resize(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        height, width = images.shape[-2:]
        scaled = size
        if self.crop_share is not None:
            factor = max(size) / self.crop_share / min(height, width)
            scaled = (max(size[0], round(height * factor)), max(size[1], round(width * factor)))
        images = functional.interpolate(images, scaled, mode=self.interpolation, antialias=True, align_corners=False)
        images = images.clamp(0, 1)
        top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
        return images[..., top : top + size[0], left : left + size[1]]


@functools.lru_cache(maxsize=32)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalisation as one multiplication and one addition: (x - m) / s = x · (1/s) + (-m/s); 1×C×1×1 each.

    The result is cached, because computing it takes longer than a small network's convolution on a small image.
    """
    with torch.inference_mode(False), torch.no_grad():  # a backward pass can't use tensors of inference mode
        deviations = torch.tensor(std, device=device, dtype=dtype).view(1, -1, 1, 1)
        means = torch.tensor(mean, device=device, dtype=dtype).view(1, -1, 1, 1)
        return -means / deviations, 1 / deviations


def parse_normalization(text: str) -> Normalization:
    """Parse a convention's name or ``M,M,M/S,S,S``; ``-bgr`` at the end reverses the order of channels.

    Raises:
        ConfigurationError: If it is neither.
    """
    name = text.removesuffix(BGR)
    order: ChannelOrder = "rgb" if name == text else "bgr"
    if name in CONVENTIONS:
        return Normalization(*CONVENTIONS[name], order)
    try:
        mean, std = (tuple(float(v) for v in part.split(",")) for part in name.split("/"))
    except ValueError:
        mean, std = (), ()
    if not mean or len(mean) != len(std) or len(mean) not in (1, 3) or min(std, default=0) <= 0:
        raise ConfigurationError(
            f"--normalize {text!r} is not understood.",
            hint=f"Write auto, one of {', '.join(CONVENTIONS)}, or means and deviations as M,M,M/S,S,S; "
            f"with {BGR} at the end for networks that take BGR.",
        )
    return Normalization(mean, std, order)
