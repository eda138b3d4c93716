"""Which network do these weights belong to? Asked when they do not fit the one that was named."""

from __future__ import annotations

from securitynet.errors import SecurityNetError
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.sources import open_source
from securitynet.models.sources import state_dicts as fitting
from securitynet.models.sources.base import Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.weights import StateDict

_SIZES = (32, 28, 64, 224, 8, 16, 48, 96)
# Networks of torchvision whose checkpoints, trained by anyone on anything, are common.
_COMMON = ("resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "vgg16_bn", "mobilenet_v2", "densenet121")


def suggest(state: StateDict, reference: ModelReference, image_size: int) -> str | None:
    """A hint that names what the weights fit: another network, or the same one for images of another size."""
    found: list[str] = []
    candidates = [("arch", name) for name in ARCHITECTURES] + [("torchvision", name) for name in _COMMON]
    if reference.scheme in ("arch", "pytorchcv", "timm", "torchvision"):
        candidates.insert(0, (reference.scheme, reference.name))
    for scheme, name in dict.fromkeys(candidates):
        fitting_size = _fitting_size(scheme, name, state, image_size)
        if fitting_size is None:
            continue
        words = f"{scheme}:{name}"
        if fitting_size != image_size:
            words += f" for images of {fitting_size}×{fitting_size} (--input-size {fitting_size})"
        found.append(words)
    if found:
        return f"They fit {' or '.join(found[:3])}."
    return "No architecture of the package fits them either; a network of your own is given as python:FILE:FACTORY."


def _fitting_size(scheme: str, name: str, state: StateDict, image_size: int) -> int | None:
    try:
        source = open_source(ModelReference(scheme=scheme, name=name))
        start = Shape(source.num_classes or 10, source.channels or 3, image_size)
        if not fitting.same_names(source, start, state):
            return None
        for size in dict.fromkeys((image_size, *_SIZES)) if source.sized else (image_size,):
            try:
                shape, _ = fitting.deduce_shape(source, state, size)
                if fitting.fits(source, shape, state):
                    return size
            except SecurityNetError:
                continue  # this architecture cannot be built at this size
    except (SecurityNetError, ImportError):
        return None
    return None
