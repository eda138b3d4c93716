"""Architectures that are given as Python objects: a factory, or a network of which fresh copies are trained.

They are registered under names made of their content (``make_net@3f2a…``), and are then used like any other
architecture, in this process. A worker process that does not have the object says so.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from securitynet.errors import ModelError
from securitynet.files import hash_stably
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.architectures._digests import DIGITS, digest_object, digest_tensor
from securitynet.randomness import isolate_random_state

_SHAPE = ("num_classes", "channels", "image_size")
_HINT = "Give a function or class that makes the network instead of the network."


def register_factory(make: Callable[..., nn.Module]) -> str:
    """Make a function or class that builds a network available as an architecture, in this process.

    The name holds a digest of its source code, defaults and closure, and of the functions and classes of the user that
    the code refers to: equal code gets an equal name, so that stored models are found again.

    Args:
        make: Called with those of the arguments ``num_classes``, ``channels`` and ``image_size`` that it takes by name.

    Returns:
        The name, for everything that takes an architecture.

    Raises:
        ModelError: If it can't be called.
    """
    if isinstance(make, nn.Module):
        return register_module(make)
    if not callable(make):
        raise ModelError(
            f"{type(make).__name__} makes no network.",
            hint="An architecture is a name, a reference, a function or class that makes a network, or a network.",
        )
    accepted = list_accepted_arguments(make)

    def build(num_classes: int, channels: int = 3, image_size: int = 32) -> Any:
        values = dict(zip(_SHAPE, (num_classes, channels, image_size), strict=True))
        return make(**{name: value for name, value in values.items() if name in accepted})

    return ARCHITECTURES.add(_label(make), digest_object(make), build)


def register_module(network: nn.Module) -> str:
    """Make a network available as an architecture, in this process: each copy starts from fresh weights.

    The name holds a digest of its layers, of their source code where it is the user's, and of what resetting them
    gives: trained weights are no part of it. Weights that the network's own constructor initialises in another way
    than its layers do by themselves start as the layers do it.

    Args:
        network: Stays as it is.

    Returns:
        The name, for everything that takes an architecture.

    Raises:
        ModelError: If it can't be copied, or holds parameters that no layer can reset.
    """
    try:
        blueprint = copy.deepcopy(network).cpu().float()
    except Exception as error:  # a stranger's network fails in its own ways
        raise ModelError(f"The network can't be copied: {type(error).__name__}: {error}.", hint=_HINT) from error
    with isolate_random_state():
        torch.manual_seed(0)
        reinitialise(blueprint)
    first = [[name, digest_tensor(tensor)] for name, tensor in blueprint.state_dict().items()]

    def build(num_classes: int, channels: int = 3, image_size: int = 32) -> nn.Module:
        del num_classes, channels, image_size  # whoever asks checks what the network takes and returns
        fresh = copy.deepcopy(blueprint)
        reinitialise(fresh)
        return fresh

    return ARCHITECTURES.add(_label(type(network)), hash_stably([digest_object(blueprint), first], DIGITS), build)


def reinitialise(network: nn.Module) -> None:
    """Give a network fresh weights from torch's random state, in place; all of them are trainable then.

    Each layer that has parameters must have ``reset_parameters``, and each parameter must be written by it: what were
    left over of trained weights would tell about the records that they were trained on.

    Raises:
        ModelError: If a parameter would keep its value.
    """
    for name, layer in network.named_modules():
        if list(layer.parameters(recurse=False)) and _resetter(layer) is None:
            raise ModelError(
                f"The layer {name or 'that is the whole network'} ({type(layer).__name__}) has parameters and no "
                "method reset_parameters, so the network can't be trained anew from a copy.",
                hint=_HINT,
            )
    try:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.requires_grad_(True).fill_(torch.nan)
        for layer in network.modules():
            reset = _resetter(layer)
            if reset is not None:
                reset()
    except Exception as error:  # a stranger's layer fails in its own ways
        raise ModelError(
            f"The layers of the network can't be reset: {type(error).__name__}: {error}.", hint=_HINT
        ) from error
    left = [name for name, parameter in network.named_parameters() if bool(parameter.isnan().any())]
    if left:
        raise ModelError(
            f"The parameter {left[0]} keeps its value when its layer is reset, so the network can't be trained anew "
            "from a copy.",
            hint=_HINT,
        )
    network.train()


def list_accepted_arguments(make: Callable[..., Any]) -> set[str]:
    """Names of the arguments that a factory takes by name."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _resetter(layer: nn.Module) -> Callable[[], object] | None:
    """The method that gives a layer fresh weights; attention and transformers of torch write it with an underscore."""
    return getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)


def _label(make: Any) -> str:
    name = str(getattr(make, "__name__", None) or type(make).__name__)
    plain = "".join(character if character.isalnum() or character in "-_" else "-" for character in name).strip("-")
    return plain or "factory"
