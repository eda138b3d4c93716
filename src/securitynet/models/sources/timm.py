"""A network of PyTorch Image Models (timm)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from securitynet.errors import ModelError
from securitynet.files import file_checksum
from securitynet.models.sources._download import fetch_address
from securitynet.models.sources._hub import fetch_hub_file, is_hub_file
from securitynet.models.sources.base import NetworkSource, Progress, Shape, explain_unknown_model
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.sources.weights import StateDict
from securitynet.torchvision_cure import import_torchvision

SCHEME = Scheme("timm", "timm:resnet18.a1_in1k", network=True, takes_weights=True, libraries=("timm",))

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which repositories of the hub keep weights, the safe kind first."""


_IMAGENET_CLASSES = 1000


def open_source(reference: ModelReference) -> NetworkSource:
    """Describe a network of timm.

    Raises:
        ModelError: If timm has no such model.
    """
    timm = import_torchvision("timm")
    architecture, _, tag = reference.name.partition(".")
    if not timm.is_model(architecture):
        raise explain_unknown_model("timm", reference.name, timm.list_models())
    tags = {name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")}
    if tag and tag not in tags:
        raise ModelError(
            f"timm has no weights {tag!r} for {architecture}.",
            hint=f"It has {', '.join(sorted(tags)) or 'none'}; weights of your own are given with --weights.",
        )
    registered = timm.models.get_pretrained_cfg(reference.name)
    pretrained: dict[str, Any] = registered.to_dict() if registered is not None else {}

    def fetch_own(progress: Progress | None) -> Path:
        if pretrained.get("hf_hub_id"):
            preferred = pretrained.get("hf_hub_filename")
            names = (preferred,) if preferred else WEIGHTS_FILES
            return fetch_hub_file(pretrained["hf_hub_id"], names, revision=None, reference=str(reference))
        return fetch_address(pretrained["url"], reference=str(reference), progress=progress)

    def is_own(path: Path) -> bool:
        if pretrained.get("hf_hub_id") and is_hub_file(path, pretrained["hf_hub_id"], WEIGHTS_FILES):
            return True
        digits = re.search(r"-([0-9a-f]{8,})\.", pretrained.get("url") or "")
        return digits is not None and file_checksum(path).startswith(digits[1])

    published = bool(tags) and bool(pretrained.get("hf_hub_id") or pretrained.get("url"))
    return open_timm(architecture, pretrained, fetch=fetch_own if published else None, is_own=is_own)


def open_timm(
    architecture: str,
    pretrained: Mapping[str, Any],
    *,
    arguments: Mapping[str, Any] | None = None,
    fetch: Any = None,
    is_own: Callable[[Path], bool] | None = None,
) -> NetworkSource:
    """Make a source for an architecture of timm and its configuration.

    Args:
        architecture: Name of the architecture, without a tag.
        pretrained: Configuration, as in timm's ``pretrained_cfg``.
        arguments: Further arguments of the architecture.
        fetch: Locates or downloads the library's own weights; None if there are none.
        is_own: Whether a file holds the library's own weights; None if that cannot be known.
    """
    timm = import_torchvision("timm")
    size = pretrained.get("input_size") or (3, 224, 224)
    fixed = bool(pretrained.get("fixed_input_size"))

    def make(shape: Shape, _keys: frozenset[str]) -> nn.Module:
        given = dict(arguments or {})
        if fixed and shape.image_size != size[-1]:
            given["img_size"] = shape.image_size
        network: nn.Module = timm.create_model(
            architecture, pretrained=False, **{**given, "num_classes": shape.num_classes, "in_chans": shape.channels}
        )
        return network

    return NetworkSource(
        architecture=f"timm:{architecture}",
        build=make,
        num_classes=pretrained.get("num_classes") or None,
        channels=int(size[0]),
        preprocessing=read_preprocessing(pretrained) if pretrained else None,
        fetch=fetch,
        convert=convert_timm,
        sized=fixed,
        class_names=_class_names(pretrained),
        is_own=is_own,
    )


def _class_names(pretrained: Mapping[str, Any]) -> tuple[str, ...]:
    """List the class names in the order of outputs: as a configuration states them, or ImageNet's."""
    if pretrained.get("label_names"):
        return tuple(map(str, pretrained["label_names"]))
    timm_data = import_torchvision("timm.data")
    subset = timm_data.infer_imagenet_subset(dict(pretrained))
    if pretrained.get("num_classes") != _IMAGENET_CLASSES or subset != "imagenet-1k":
        return ()
    known = timm_data.ImageNetInfo("imagenet-1k")
    return tuple(known.index_to_description(number) for number in range(_IMAGENET_CLASSES))


def read_preprocessing(pretrained: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing in timm's configuration of pretrained weights: size, crop, interpolation, normalisation."""
    size = pretrained.get("input_size") or (3, 224, 224)
    squeezed = pretrained.get("crop_mode") == "squash"
    return Preprocessing(
        mean=tuple(pretrained.get("mean") or ()),
        std=tuple(pretrained.get("std") or ()),
        input_size=(int(size[1]), int(size[2])),
        crop_share=None if squeezed else float(pretrained.get("crop_pct") or 0.875),
        # Its other methods differ from these by less than JPEG compression does.
        interpolation="bilinear" if pretrained.get("interpolation") == "bilinear" else "bicubic",
    )


def convert_timm(state: StateDict, network: nn.Module) -> StateDict:
    """Convert older files of an architecture with the filter that timm provides for it."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted = convert(dict(state), network)
    except (KeyError, IndexError, RuntimeError, AttributeError, ValueError):
        return state  # written for other files: the mismatch is then reported unchanged
    return dict(converted)
