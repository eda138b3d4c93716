"""Find the network to which weights belong, if they do not fit the named one."""

from __future__ import annotations

from securitynet.errors import SecurityNetError
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.sources import open_source
from securitynet.models.sources import state_dicts as fitting
from securitynet.models.sources.base import Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.weights import StateDict

_SIZES = (32, 28, 64, 224, 8, 16, 48, 96)
# Networks of torchvision for which checkpoints of other training runs are common.
_COMMON = ("resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "vgg16_bn", "mobilenet_v2", "densenet121")


def suggest(state: StateDict, reference: ModelReference, image_size: int) -> str | None:
    """Describe what the weights fit: another network, or the same one for images of another size.

    Args:
        state: The weights.
        reference: Reference of the network that they do not fit.
        image_size: Height and width for which it was built.
    """
    matches: list[str] = []
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
        matches.append(words)
    if matches:
        return f"They fit {' or '.join(matches[:3])}."
    return "No architecture of the package fits them either; a network of your own is given as python:FILE:FACTORY."


def _fitting_size(scheme: str, name: str, state: StateDict, image_size: int) -> int | None:
    try:
        source = open_source(ModelReference(scheme=scheme, name=name))
        start = Shape(source.num_classes or 10, source.channels or 3, image_size)
        if not fitting.match_names(source, start, state):
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
