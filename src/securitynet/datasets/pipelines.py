"""Transforms of torchvision datasets, read instead of run: shaping, normalisation, random augmentation.

An assessment needs the images as they are, in [0, 1]. Normalisation belongs to the target, where an adversary's queries
pass through it too, and random augmentation belongs to training only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from PIL import Image

from securitynet.records import Record
from securitynet.torchvision_cure import import_torchvision

Step: TypeAlias = Callable[[Image.Image], Image.Image]

_LIBRARIES = ("torchvision.", "timm.", "torch.nn.")
_GROUPS = frozenset(("Compose", "Sequential"))
_CONVERSIONS = {
    *("ToTensor", "PILToTensor", "ToImage", "ConvertImageDtype", "ToDtype", "ToPILImage", "ToPureTensor"),
    *("MaybeToTensor", "MaybePILToTensor", "Identity"),
}
_SHAPING = frozenset(("Resize", "CenterCrop", "Pad", "Grayscale"))
_RANDOM = {
    *("ColorJitter", "AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix", "ElasticTransform"),
    *("ScaleJitter", "GaussianBlur", "JPEG"),
}


class InputTransform(Record):
    """Preprocessing between an image in [0, 1] and a model; the fields are those of the models' `Preprocessing`.

    Attributes:
        mean: One value per channel; empty for none.
        std: Likewise.
        input_size: Height and width; None for the images' own.
        crop_share: Share of the shorter side that the input shows; None for the whole image.
        interpolation: Method of resizing.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_size: tuple[int, int] | None = None
    crop_share: float | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass
class Pipeline:
    """A transform, decomposed.

    Attributes:
        shaping: Resizing, cropping and the like, in order; each takes a Pillow image.
        normalisation: (mean, deviation) per channel; None for none.
        random: Names of random transforms, which are left out.
        random_sizes: (height, width) to which they resize images.
        unread: Name of a transform that is not recognised; None if all are.
    """

    shaping: list[Step] = field(default_factory=list)
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    random: list[str] = field(default_factory=list)
    random_sizes: list[tuple[int, int]] = field(default_factory=list)
    unread: str | None = None

    def describe_shaping(self) -> str:
        """The shaping in torchvision's notation; equal texts have equal effects."""
        return ", ".join(str(step) for step in self.shaping)


def read_pipeline(transform: Any) -> Pipeline:
    """Decompose a transform. None of it is called."""
    pipeline = Pipeline()
    for step in _flatten(transform):
        name, known = type(step).__name__, type(step).__module__.startswith(_LIBRARIES)
        if not known or (pipeline.normalisation is not None and name in _SHAPING | {"Normalize"}):
            pipeline.unread = pipeline.unread or getattr(step, "__name__", name)
        elif name.startswith("Random") or name in _RANDOM:
            pipeline.random.append(name)
            if name.startswith(("RandomResizedCrop", "RandomCrop")):
                pipeline.random_sizes.append(_pair(step.size))
        elif name in _SHAPING:
            pipeline.shaping.append(step)
        elif name == "Normalize":
            pipeline.normalisation = _numbers(step.mean), _numbers(step.std)
        elif name not in _CONVERSIONS or (name == "ToDtype" and not step.scale):
            pipeline.unread = pipeline.unread or name
    return pipeline


def move_to_input(pipeline: Pipeline, height: int, width: int) -> InputTransform | None:
    """Express the shaping as part of the target, for images of one shape; None if it must be applied to the images.

    Images are shrunk beforehand: they then take less memory, and are exactly as the pipeline makes them.

    Args:
        pipeline: The decomposed transform.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
    """
    names = [type(step).__name__ for step in pipeline.shaping]
    if not names:
        return InputTransform()
    resize: Any = pipeline.shaping[0]
    interpolation = getattr(getattr(resize, "interpolation", None), "value", None)
    if names not in (["Resize"], ["Resize", "CenterCrop"]) or interpolation not in ("bilinear", "bicubic"):
        return None
    if getattr(resize, "max_size", None) is not None or resize.size is None:
        return None
    sizes = [resize.size] if isinstance(resize.size, int) else list(resize.size)
    short, long = sorted((height, width))
    stretched = len(sizes) == 2
    if stretched:
        scaled = sizes[0], sizes[1]
    else:
        other = int(sizes[0] * long / short)
        scaled = (sizes[0], other) if height <= width else (other, sizes[0])
    share, size = None, scaled
    if len(names) == 2:
        crop: Any = pipeline.shaping[1]
        size = _pair(crop.size)
        if stretched or size[0] != size[1] or size[0] > min(scaled):
            return None
        share = size[0] / min(scaled)
    if scaled[0] * scaled[1] < height * width:
        return None
    return InputTransform(input_size=size, crop_share=share, interpolation=interpolation)


def _flatten(transform: Any) -> Iterator[Any]:
    name = type(transform).__name__
    if transform is None:
        return
    if not type(transform).__module__.startswith(_LIBRARIES):
        yield transform
    elif name in _GROUPS:
        for step in getattr(transform, "transforms", transform):
            yield from _flatten(step)
    elif name == "ImageClassification":  # the attribute of torchvision's weights
        kinds: Any = import_torchvision("torchvision.transforms")
        yield kinds.Resize(transform.resize_size, interpolation=transform.interpolation)
        yield kinds.CenterCrop(transform.crop_size)
        yield kinds.Normalize(transform.mean, transform.std)
    else:
        yield transform


def _pair(size: Any) -> tuple[int, int]:
    values = [size] if isinstance(size, int) else list(size)
    return int(values[0]), int(values[-1])


def _numbers(values: Any) -> tuple[float, ...]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    return tuple(float(value) for value in (listed if isinstance(listed, list | tuple) else [listed]))
