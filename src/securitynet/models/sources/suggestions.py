"""Find the network to which weights belong, if they do not fit the named one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from securitynet.errors import SecurityNetError
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.sources import open_source
from securitynet.models.sources import state_dicts as fitting
from securitynet.models.sources.base import Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.weights import StateDict

_SIZES = (32, 28, 64, 224, 8, 16, 48, 96)
# Networks of torchvision for which checkpoints of other training runs are common.
NOTHING_FITS = "No architecture of the package fits them either; a network of your own is given as python:FILE:FACTORY."

_COMMON = ("resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "vgg16_bn", "mobilenet_v2", "densenet121")


_MEMBER = re.compile(r"((?:model|net|network|member|estimator|learner|fold|branch)s?[._]?\d+)\.(.+)")


def describe_kind(state: StateDict) -> str | None:
    """Say what a file is, and what to do, where its names show that it isn't the weights of one network.

    Args:
        state: The weights.
    """
    if any(re.search(r"(^|\.)lora_(A|B|down|up)(\.|$)", key) for key in state):
        return (
            "The file holds LoRA adapters beside the weights: merge them where the network is made "
            "(model.merge_and_unload() of PEFT), and save what results."
        )
    if any("_packed_params" in key or key.endswith("zero_point") for key in state):
        return (
            "The file is of a quantised network: give the weights from before the quantisation, or export the "
            "quantised network to ONNX (onnx:FILE) or TFLite (tflite:FILE)."
        )
    members: dict[str, set[str]] = {}
    for key in state:
        match = _MEMBER.fullmatch(key)
        if match is None:
            return None
        members.setdefault(match[1], set()).add(match[2])
    if len(members) < 2 or any(names != next(iter(members.values())) for names in members.values()):
        return None
    first = next(iter(members))
    return (
        f"The file holds {len(members)} networks ({', '.join(members)}): an ensemble. Give a network that holds them "
        f"all and averages their outputs as python:FILE:FACTORY, or save one of them alone (the tensors of {first}.)."
    )


def describe_surplus(state: StateDict, wanted: Mapping[str, torch.Tensor]) -> str | None:
    """Say what to do where a file holds a whole network, and more: an auxiliary or a distillation head.

    Args:
        state: Tensors by the network's names.
        wanted: The network's tensors.
    """
    surplus = [key for key in state if key not in wanted]
    fits = all(key in state and state[key].shape == value.shape for key, value in wanted.items() if value.ndim)
    if not surplus or not fits:
        return None
    layers = ", ".join(list(dict.fromkeys(key.rpartition(".")[0] or key for key in surplus))[:4])
    return (
        f"The file holds all that the network has, and beside it {layers}: such as a second head for training, or for "
        "distillation. If the network answers without it, save the weights without these tensors; if not, name the "
        "network that has it, or give it as python:FILE:FACTORY."
    )


def suggest(state: StateDict, reference: ModelReference, image_size: int) -> str | None:
    """Describe what the weights fit: another network, or the same one for images of another size.

    Args:
        state: The weights.
        reference: Reference of the network that they do not fit.
        image_size: Height and width for which it was built.

    Returns:
        A sentence; None if no architecture of the package fits.
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
    return f"They fit {' or '.join(matches[:3])}." if matches else None


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
