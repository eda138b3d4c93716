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
from securitynet.models.sources._download import fetch
from securitynet.models.sources._hub import hub_file, is_hub_file
from securitynet.models.sources.base import NetworkSource, Progress, Shape, unknown_model
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.sources.weights import StateDict
from securitynet.torchvision_cure import import_torchvision

SCHEME = Scheme("timm", "timm:resnet18.a1_in1k", network=True, takes_weights=True)

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which repositories of the hub keep weights, the safe kind first."""


def open_source(reference: ModelReference) -> NetworkSource:
    """See `securitynet.models.sources.open_source`."""
    timm = import_torchvision("timm")
    architecture, _, tag = reference.name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_model("timm", reference.name, timm.list_models())
    tags = {name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")}
    if tag and tag not in tags:
        raise ModelError(
            f"timm has no weights {tag!r} for {architecture}.",
            hint=f"It has {', '.join(sorted(tags)) or 'none'}; weights of your own are given with --weights.",
        )
    registered = timm.models.get_pretrained_cfg(reference.name)
    facts: dict[str, Any] = registered.to_dict() if registered is not None else {}

    def fetch_own(progress: Progress | None) -> Path:
        if facts.get("hf_hub_id"):
            preferred = facts.get("hf_hub_filename")
            names = (preferred,) if preferred else WEIGHTS_FILES
            return hub_file(facts["hf_hub_id"], names, revision=None, reference=str(reference))
        return fetch(facts["url"], reference=str(reference), progress=progress)

    def is_own(path: Path) -> bool:
        if facts.get("hf_hub_id") and is_hub_file(path, facts["hf_hub_id"], WEIGHTS_FILES):
            return True
        digits = re.search(r"-([0-9a-f]{8,})\.", facts.get("url") or "")
        return digits is not None and file_checksum(path).startswith(digits[1])

    published = bool(tags) and bool(facts.get("hf_hub_id") or facts.get("url"))
    return timm_source(architecture, facts, fetch=fetch_own if published else None, is_own=is_own)


def timm_source(
    architecture: str,
    facts: Mapping[str, Any],
    *,
    arguments: Mapping[str, Any] | None = None,
    fetch: Any = None,
    is_own: Callable[[Path], bool] | None = None,
) -> NetworkSource:
    """A source for an architecture of timm and what its configuration states.

    Args:
        architecture: Without a tag.
        facts: As in timm's ``pretrained_cfg``.
        arguments: Further arguments of the architecture.
        fetch: See `NetworkSource`.
        is_own: See `NetworkSource`.
    """
    timm = import_torchvision("timm")
    size = facts.get("input_size") or (3, 224, 224)
    fixed = bool(facts.get("fixed_input_size"))

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
        num_classes=facts.get("num_classes") or None,
        channels=int(size[0]),
        preprocessing=preprocessing(facts) if facts else None,
        fetch=fetch,
        convert=_convert,
        sized=fixed,
        class_names=tuple(facts.get("label_names") or ()),
        is_own=is_own,
    )


def preprocessing(facts: Mapping[str, Any]) -> Preprocessing:
    """What timm's configuration of pretrained weights states: size, crop, interpolation, normalisation."""
    size = facts.get("input_size") or (3, 224, 224)
    squeezed = facts.get("crop_mode") == "squash"
    return Preprocessing(
        mean=tuple(facts.get("mean") or ()),
        std=tuple(facts.get("std") or ()),
        input_size=(int(size[1]), int(size[2])),
        crop_share=None if squeezed else float(facts.get("crop_pct") or 0.875),
        # Its other kinds differ from these by less than a JPEG does.
        interpolation="bilinear" if facts.get("interpolation") == "bilinear" else "bicubic",
    )


def _convert(state: StateDict, network: nn.Module) -> StateDict:
    """Older files of an architecture, by the filter that timm keeps beside it."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted = convert(dict(state), network)
    except (KeyError, IndexError, RuntimeError, AttributeError, ValueError):
        return state  # made for other files than this one: the mismatch is then reported as it is
    return dict(converted)
