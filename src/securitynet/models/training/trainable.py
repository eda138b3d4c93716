"""Architectures that can be trained: one function leads from a name or a reference to networks with fresh weights.

An architecture is written like a model: the name of one of ours (``cifar-resnet20``), ``timm:NAME``,
``torchvision:NAME``, ``pytorchcv:NAME``, ``hf:OWNER/NAME``, ``hf:./FOLDER``, ``python:FILE:FACTORY``, or the name that
`securitynet.models.architectures.in_process.register_factory` gave to a Python object.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn
from typing_extensions import override

from securitynet.devices import use_meta_device
from securitynet.errors import ConfigurationError, ModelError, SecurityNetError
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.architectures.in_process import register_factory, reinitialise
from securitynet.models.sources import open_source
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.catalog import resolve_entry
from securitynet.models.sources.references import ModelReference, parse_reference
from securitynet.models.sources.versions import describe_builder
from securitynet.models.targets import heads
from securitynet.models.targets.outputs import AdaptedNetwork, adapt_outputs, flatten_scores, take_scores
from securitynet.randomness import isolate_random_state, seed_global_state

ImageSize: TypeAlias = int | tuple[int, int]
"""Height and width of images in pixels; one number if they are equal."""

NetworkShape: TypeAlias = tuple[int, int, ImageSize]
"""What a network is built for: classes, channels, size of the images."""

_PROBE = 4
_SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Architecture:
    """An architecture that can be trained.

    Attributes:
        reference: From which it is found again on this machine: a name of ours, or a reference with its folders.
        name: The same without folders, for records and messages.
        version: Of the library that builds it, or digest of the source code that does; empty for ours.
        identity: Names the computation in the checksums of networks.
        own_code: Whether it is the user's code that builds it.
        sized: Whether its weights depend on the size of the images.
    """

    reference: str
    name: str
    version: str
    identity: str
    own_code: bool
    sized: bool
    _source: NetworkSource = field(repr=False, compare=False)

    def choose_input_sides(self, sides: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which this architecture gets images of such sides.

        Networks of the user's own code get images as they are, square or not. The package's and the libraries', most of
        which are made for squares, get images that are not square stretched to their longer side.

        Args:
            sides: Height and width of the images in pixels.
        """
        return sides if self.own_code else (max(sides), max(sides))

    def build(self, num_classes: int, channels: int = 3, image_size: ImageSize = 32) -> nn.Module:
        """A network with fresh weights from torch's global random state, in training mode.

        The user's own networks are tried on a few random images first. One that ends in a softmax or sigmoid, or
        returns more than the scores, is wrapped so that it returns logits; its ``state_dict`` stays its own. One whose
        weights are always the same, because its code loads them, gets fresh weights: shadow models that start from the
        target's would have seen its members.

        Args:
            num_classes: Number of logits, at least 2.
            channels: Channels of the images.
            image_size: Height and width of the images in pixels, as a pair if they differ. What makes the network is
                given one number, the longer side.

        Returns:
            A network from N×channels×height×width to N×num_classes logits.

        Raises:
            ModelError: If it can't be built for such images and classes.
        """
        sides = expand_size(image_size)
        shape = Shape(num_classes, channels, max(sides))
        network = self._build(shape)
        if not self.own_code:
            return network
        if _has_fixed_weights(self, shape):
            network = copy.deepcopy(network)  # the code may give out the same object each time
            reinitialise(network)
        return _with_logits(network.float(), num_classes, (channels, *sides), self.name).train()

    def count_weights(self, num_classes: int, channels: int = 3, image_size: ImageSize = 32) -> int:
        """Number of weights; torch's global random state is left as it was.

        Args:
            num_classes: Number of logits.
            channels: Channels of the images.
            image_size: Height and width in pixels, as a pair if they differ.
        """
        shape = Shape(num_classes, channels, max(expand_size(image_size)))
        with isolate_random_state():
            if self._source.on_meta and not self.own_code:
                with use_meta_device():
                    network = self._build(shape)
            else:
                network = self._build(shape)
        return sum(parameter.numel() for parameter in network.parameters())

    def _build(self, shape: Shape) -> nn.Module:
        try:
            network: Any = self._source.build(shape, frozenset())
        except SecurityNetError:
            raise
        except Exception as error:  # libraries and the user's code fail in their own ways
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"{self.name} cannot be built for {_describe(shape)}: {words}",
                hint="Choose another architecture.",
            ) from error
        if not isinstance(network, nn.Module):
            raise ModelError(f"{self.name} makes {type(network).__name__}, not a torch.nn.Module.")
        return network


def find_architecture(reference: str | Callable[..., nn.Module]) -> Architecture:
    """The architecture that a name or a reference stands for.

    Args:
        reference: See the module; a factory or a network is registered, as `register_factory` does. Weights that a
            reference names besides (``timm:resnet18.a1_in1k``) count for nothing.

    Raises:
        UnknownName: If it is a name and none of ours.
        ConfigurationError: If it is no reference, or one of something that can't be trained.
        ModelError: If there is no such network, or it was given as an object in another process.
    """
    text = (reference if isinstance(reference, str) else register_factory(reference)).strip()
    if ":" not in text:
        text = f"arch:{ARCHITECTURES.resolve(text).name}"
    parsed = parse_reference(text)
    if parsed.scheme == "catalog":
        parsed = resolve_entry(parsed).reference
    if not parsed.declaration.takes_weights:
        raise ConfigurationError(
            f"{text} is not a network that can be trained.",
            hint="An architecture is a name (securitynet list architectures), timm:NAME, torchvision:NAME, "
            "pytorchcv:NAME or python:FILE:FACTORY.",
        )
    return describe_architecture(parsed, open_source(parsed))


def build_trainable(reference: str, num_classes: int, channels: int = 3, image_size: ImageSize = 32) -> nn.Module:
    """A network with fresh weights: see `find_architecture` and `Architecture.build`.

    Args:
        reference: Name of an architecture, or a model reference.
        num_classes: Number of logits.
        channels: Channels of the images.
        image_size: Height and width in pixels, as a pair if they differ.
    """
    return find_architecture(reference).build(num_classes, channels, image_size)


def describe_architecture(reference: ModelReference, source: NetworkSource) -> Architecture:
    """The architecture of a reference that has been opened already."""
    if reference.scheme == "arch":
        name = source.architecture
        own_code = ARCHITECTURES.is_object(name)
        return Architecture(name, name, "", name, own_code, source.sized, source)
    if reference.path is not None:
        absolute = reference.model_copy(update={"name": str(reference.path.resolve())})
        text, name = str(absolute), str(reference.without_folders())
    elif source.architecture.startswith(f"{reference.scheme}:"):
        text = name = source.architecture  # without the weights that the reference may name
    else:
        text = name = str(reference)
    own_code = reference.declaration.file
    return Architecture(text, name, describe_builder(reference), source.architecture, own_code, source.sized, source)


@functools.lru_cache(maxsize=64)
def _has_fixed_weights(architecture: Architecture, shape: Shape) -> bool:
    """Whether all weight matrices come out the same under two random states: the code loads them, or sets a seed."""
    with isolate_random_state():
        states = []
        for seed in (1, 2):
            seed_global_state(seed)
            state = architecture._build(shape).state_dict()
            states.append({name: value.clone() for name, value in state.items() if value.ndim > 1})
    first, second = states
    return bool(first) and all(
        name in second and value.shape == second[name].shape and torch.equal(value, second[name])
        for name, value in first.items()
    )


def expand_size(size: ImageSize) -> tuple[int, int]:
    """Height and width of a size."""
    return (size, size) if isinstance(size, int) else size


def shorten_size(sides: tuple[int, int]) -> ImageSize:
    """The size of images of such a height and width."""
    return sides[0] if sides[0] == sides[1] else sides


def _with_logits(network: nn.Module, classes: int, shape: tuple[int, int, int], name: str) -> nn.Module:
    """A user's network, wrapped where it returns something else than N×K logits.

    Args:
        network: The network.
        classes: K.
        shape: (channels, height, width) of the images.
        name: Of the network, for messages.

    Raises:
        ModelError: If it does not take the images, or has another number of classes.
    """
    with isolate_random_state(), torch.no_grad():
        images = torch.rand((_PROBE, *shape))
        network.eval()
        try:
            network(images)
        except Exception as error:  # the user's code fails in its own ways
            raise _explain_refusal(network, shape, name, error) from error
        adapted, _ = adapt_outputs(network, shape, classes=classes, reference=name)
        scores = flatten_scores(take_scores(adapted(images), name))
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise ModelError(
            f"{name} returns scores of shape {'×'.join(map(str, scores.shape))} for {_PROBE} images, where "
            f"{classes} classes are wanted.",
            hint="Let its factory heed the argument num_classes.",
        )
    probabilities = heads.detect(scores.float()) == "probabilities"
    if not probabilities and adapted is network:
        return network
    return TrainableNetwork(adapted, probabilities=probabilities)


def _explain_refusal(network: nn.Module, shape: tuple[int, int, int], name: str, error: Exception) -> ModelError:
    """The error for a network that failed on images of a shape; says so if it takes square ones."""
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    channels, height, width = shape
    side = max(height, width)
    if height != width and _takes(network, (channels, side, side)):
        return ModelError(
            f"{name} takes square images only: it takes {channels}×{side}×{side} and not {channels}×{height}×{width} "
            f"({words}).",
            hint="Stretch the images to squares with --image-size N, or let the network pool to a fixed size before "
            "its linear layers (torch.nn.AdaptiveAvgPool2d).",
        )
    return ModelError(
        f"{name} does not take images of {channels}×{height}×{width}: {words}",
        hint="Let its factory heed the arguments channels and image_size, or convert the images with --channels and "
        "--image-size.",
    )


def _takes(network: nn.Module, shape: tuple[int, int, int]) -> bool:
    try:
        network(torch.rand((_PROBE, *shape)))
    except Exception:  # the user's code fails in its own ways
        return False
    return True


class TrainableNetwork(nn.Module):
    """A user's network that returns logits; its tensors keep the names that they have without this.

    Args:
        adapted: The network, with its outputs brought into rows of scores.
        probabilities: Whether those are probabilities, whose logarithms are logits.
    """

    def __init__(self, adapted: nn.Module, *, probabilities: bool) -> None:
        super().__init__()
        self.adapted = adapted
        self.probabilities = probabilities

    @property
    def plain(self) -> nn.Module:
        """The network as the user's code makes it."""
        return self.adapted.inner if isinstance(self.adapted, AdaptedNetwork) else self.adapted

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = take_scores(self.adapted(images), "The network")
        return scores.clamp_min(_SMALLEST).log() if self.probabilities else scores

    @override
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.plain.state_dict(*args, **kwargs)

    @override
    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.plain.load_state_dict(*args, **kwargs)


def _describe(shape: Shape) -> str:
    return f"{shape.num_classes} classes and {shape.channels}×{shape.image_size}×{shape.image_size} images"
