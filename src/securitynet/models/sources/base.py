"""`NetworkSource`: the description of a network before its weights are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from securitynet.errors import ModelError, suggest_names
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.weights import StateDict

Progress = Callable[[int, int], object]
"""Called with (bytes done, bytes in all) while something is downloaded."""


@dataclass(frozen=True)
class Shape:
    """The shape for which a network is built.

    Attributes:
        num_classes: Length of an output row.
        channels: Channels of the input.
        image_size: Height and width of the input, for networks whose weights depend on it.
    """

    num_classes: int
    channels: int = 3
    image_size: int = 32


@dataclass(frozen=True)
class NetworkSource:
    """A network that can be built, and the location of its weights.

    Attributes:
        architecture: Name of the computation; part of the checksum.
        build: Builds the network with arbitrary weights. Its second argument are the names of the tensors to be loaded,
            for networks whose parts can be left out.
        num_classes: Number of classes of the library's own weights; None if it has none.
        channels: Channels of the library's own weights; None if it has none.
        preprocessing: Preprocessing that the library states for its own weights; None if it states none.
        input_size: Height and width of the input, if they are fixed and no preprocessing is stated.
        fetch: Locates or downloads the library's own weights; None if there are none.
        convert: Converts tensors of older files of this library to the current form.
        fixed_classes: Whether the network cannot be built for another number of classes.
        sized: Whether ``build`` uses the image size.
        bring_own: Whether the built network has meaningful weights already (a user's factory may load them).
        on_meta: Whether it may be built without memory, to see shapes only.
        known_shapes: Whether ``architecture`` and the shape determine the shapes of all its tensors.
        class_names: Names in the order of the outputs, if the library states them.
        is_own: Whether a file holds the library's own weights; None if it has none, or cannot know.
        set_own_flags: Makes the changes to a network that the library's own weights need (to its input); None for no
            changes. Other weights were seldom trained with them.
        weight_sets: Names of sets, of which the library takes the first that a file with several holds.
    """

    architecture: str
    build: Callable[[Shape, frozenset[str]], nn.Module]
    num_classes: int | None = None
    channels: int | None = None
    preprocessing: Preprocessing | None = None
    input_size: tuple[int, int] | None = None
    fetch: Callable[[Progress | None], Path] | None = None
    convert: Callable[[StateDict, nn.Module], StateDict] | None = None
    fixed_classes: bool = False
    sized: bool = False
    bring_own: bool = False
    on_meta: bool = True
    known_shapes: bool = False
    class_names: tuple[str, ...] = ()
    is_own: Callable[[Path], bool] | None = None
    set_own_flags: Callable[[nn.Module], None] | None = None
    weight_sets: tuple[str, ...] = ()


class OpaqueNetwork(nn.Module):
    """A compiled or exported network as an ordinary module.

    The parameters of TorchScript programs cannot be frozen in the usual way, and exported graphs have no modes: they
        stay
    in the mode in which they were written.

    Args:
        inner: The program.
        has_modes: Whether it has training and evaluation modes.
    """

    def __init__(self, inner: nn.Module, *, has_modes: bool) -> None:
        super().__init__()
        self.inner = inner
        self.has_modes = has_modes

    def __deepcopy__(self, _copies: Any) -> OpaqueNetwork:
        # A program never changes, and TorchScript's own copies have parameters that can't be frozen.
        return OpaqueNetwork(self.inner, has_modes=self.has_modes)

    @override
    def train(self, mode: bool = True) -> OpaqueNetwork:
        if self.has_modes:
            return super().train(mode)
        self.training = mode
        return self

    @override
    def forward(self, images: torch.Tensor) -> Any:
        return self.inner(images)


def explain_unknown_model(library: str, name: str, known: Iterable[str]) -> ModelError:
    """Make the error for a name that a library does not have, with similar names.

    Args:
        library: Name of the library.
        name: The unknown name.
        known: The names that the library has.
    """
    close = suggest_names(name, known)
    hint = f"Did you mean {close}?" if close else f"Look its models up in the documentation of {library}."
    return ModelError(f"{library} has no image classifier named {name!r}.", hint=hint)
