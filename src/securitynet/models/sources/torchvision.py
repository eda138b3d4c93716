"""A network of torchvision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import nn

from securitynet.errors import ModelError
from securitynet.files import file_checksum
from securitynet.models.sources._download import fetch_address
from securitynet.models.sources.base import NetworkSource, Progress, Shape, explain_unknown_model
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.sources.weights import StateDict
from securitynet.torchvision_cure import import_torchvision

SCHEME = Scheme(
    "torchvision",
    "torchvision:resnet50@IMAGENET1K_V2",
    network=True,
    takes_weights=True,
    pattern="(?P<name>[^@]*)(@(?P<detail>.*))?",
    libraries=("torchvision",),
)

_WITH_AUXILIARY = ("googlenet", "inception_v3")
_COLOUR = 3


def open_source(reference: ModelReference) -> NetworkSource:
    """Describe a network of torchvision.

    Raises:
        ModelError: If torchvision has no such model or weights.
    """
    models = import_torchvision("torchvision.models")
    known = models.list_models(module=models)
    if reference.name not in known:
        raise explain_unknown_model("torchvision", reference.name, known)
    chosen = _weights(models, reference)
    preprocessing = _preprocessing(chosen.transforms())
    sized = reference.name.startswith("vit_")

    def make(shape: Shape, keys: frozenset[str]) -> nn.Module:
        arguments: dict[str, Any] = {}
        if sized:
            arguments["image_size"] = shape.image_size
        if reference.name in _WITH_AUXILIARY:
            # Training needs the auxiliary classifiers, evaluation does not: saved networks come with and without them.
            auxiliary = not keys or any("aux" in key.lower() for key in keys)
            arguments |= {"aux_logits": auxiliary, "init_weights": False, "transform_input": False}
        network: nn.Module = models.get_model(reference.name, weights=None, num_classes=shape.num_classes, **arguments)
        return network if shape.channels == _COLOUR else change_channels(network, shape.channels)

    digits = re.search(r"-([0-9a-f]{8,})\.", chosen.url)

    def fetch_own(progress: Progress | None) -> Path:
        return fetch_address(
            chosen.url, reference=str(reference), sha256=digits[1] if digits else None, progress=progress
        )

    def is_own(path: Path) -> bool:
        return digits is not None and file_checksum(path).startswith(digits[1])

    categories = tuple(chosen.meta.get("categories") or ())
    return NetworkSource(
        architecture=f"torchvision:{reference.name}",
        build=make,
        num_classes=len(categories) or None,
        channels=_COLOUR,
        preprocessing=preprocessing,
        fetch=fetch_own,
        convert=_convert,
        sized=sized,
        class_names=categories,
        is_own=is_own,
        set_own_flags=_transform_input if reference.name in _WITH_AUXILIARY else None,
    )


def _transform_input(network: nn.Module) -> None:
    """Set ``transform_input``: the first weights of these networks came from TensorFlow, with another normalisation."""
    network.transform_input = True  # type: ignore[assignment]


def change_channels(network: nn.Module, channels: int) -> nn.Module:
    """Replace the first convolution of a network by one for another number of channels, as is usual for grey images."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent = network.get_submodule(name.rpartition(".")[0])
            made = nn.Conv2d(
                channels,
                layer.out_channels,
                kernel_size=layer.kernel_size,  # type: ignore[arg-type]
                stride=layer.stride,  # type: ignore[arg-type]
                padding=layer.padding,  # type: ignore[arg-type]
                dilation=layer.dilation,  # type: ignore[arg-type]
                groups=layer.groups,
                bias=layer.bias is not None,
            )
            setattr(parent, name.rpartition(".")[2], made)
            return network
    return network


def _weights(models: Any, reference: ModelReference) -> Any:
    offered = models.get_model_weights(reference.name)
    if reference.detail is None:
        return offered.DEFAULT
    if reference.detail not in offered.__members__:
        raise ModelError(
            f"torchvision has no weights {reference.detail!r} for {reference.name}.",
            hint=f"It has {', '.join(offered.__members__)}.",
        )
    return offered[reference.detail]


def _preprocessing(transform: Any) -> Preprocessing:
    crop, resize = int(transform.crop_size[0]), int(transform.resize_size[0])
    return Preprocessing(
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        input_size=(crop, crop),
        crop_share=min(1.0, crop / resize),
        interpolation="bicubic" if "bicubic" in str(transform.interpolation).lower() else "bilinear",
    )


def _convert(state: StateDict, _network: nn.Module) -> StateDict:
    """Rename tensors of old DenseNet files, which have names like ``norm.1`` instead of ``norm1``."""
    return {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key): value for key, value in state.items()}
