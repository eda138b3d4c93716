"""Keras models that are given as objects: a network of torch that takes images with channels last."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import nn

from securitynet.errors import ModelError
from securitynet.models.loading.content_digest import digest_network
from securitynet.models.sources.keras import ChannelsFirst, ChannelsLast
from securitynet.models.sources.weights import state_checksum

_PACKAGES = ("keras", "tf_keras", "tensorflow")


def is_keras_model(model: object) -> bool:
    """Whether an object is a model of Keras, on whichever back end; Keras is not imported for it."""
    return any(
        base.__name__ == "Model" and base.__module__.partition(".")[0] in _PACKAGES for base in type(model).__mro__
    )


def check_keras_backend(model: object, reference: str) -> None:
    """Refuse a Keras model that is no network of torch.

    Raises:
        ModelError: If it was made on another back end.
    """
    if is_keras_model(model) and not isinstance(model, nn.Module):
        raise ModelError(
            f"{reference} is a Keras model on another back end than torch's, so it is not a torch network.",
            hint="Save it with model.save('model.keras') and give 'keras:model.keras' instead, in a process that has "
            "not imported Keras; or set KERAS_BACKEND=torch before Keras is imported.",
        )


def take_channels_first(model: Any) -> nn.Module:
    """A Keras model behind a layer that passes it N×C×H×W images as it takes them."""
    layers = model._flatten_layers()
    if any(getattr(layer, "data_format", None) == "channels_first" for layer in layers):
        return ChannelsFirst(model)
    return ChannelsLast(model)


def read_input_shape(model: Any) -> tuple[int | None, tuple[int, int] | None]:
    """Channels, and height and width, of the images that a Keras model takes; None for what it leaves open.

    Raises:
        ModelError: If its input is not one batch of images.
    """
    try:
        shape = model.input_shape
    except (AttributeError, ValueError):  # a model that has not been called yet
        return None, None
    if shape is None:
        return None, None
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ModelError(
            f"The Keras model takes inputs of shape {shape}; an image classifier takes one batch of images.",
            hint="Only models with one input of images can be assessed.",
        )
    first = not isinstance(take_channels_first(model), ChannelsLast)
    channels, size = (shape[1], shape[2:]) if first else (shape[3], shape[1:3])
    return channels, None if None in size else size


def digest_keras_model(model: Any) -> str:
    """SHA-256 of the layers, settings and weights of a Keras model.

    The names that Keras numbers anew in each process count for nothing. Layers that the user defined count with their
    code.
    """
    layers = model._flatten_layers()
    if any(not type(layer).__module__.startswith("keras.") for layer in layers):
        return digest_network(model)
    serialized = sys.modules["keras"].saving.serialize_keras_object(model)
    text = json.dumps({"class": serialized["class_name"], "config": serialized["config"]}, sort_keys=True, default=str)
    for number, layer in enumerate(layers):
        text = text.replace(json.dumps(layer.name), f'"layer {number}"')
    weights: dict[str, torch.Tensor] = {str(number): weight.value for number, weight in enumerate(model.weights)}
    return state_checksum({name: value.detach().cpu() for name, value in weights.items()}, f"object:keras:{text}")
