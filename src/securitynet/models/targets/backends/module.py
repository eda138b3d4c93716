"""A torch module as a backend."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import nn
from typing_extensions import override

from securitynet.errors import TargetError
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.embeddings import Extract, choose_extractor
from securitynet.models.targets.optimise import PreparedNetwork, prepare_network
from securitynet.models.targets.outputs import describe_missing, take_scores
from securitynet.models.targets.threads import compute_equal_size, make_network_threads

CALL_NUMBERS = 1 << 21
"""Numbers in the images of one call on a CPU, about: 8 MiB of them."""


class ModuleBackend(Backend):
    """A torch network that runs in this process, frozen and optimised.

    Args:
        module: The network, with its weights.
        reference: Reference as the user writes it.
        checksum: Digest of architecture and weights.
        example_shape: (C, H, W) of its inputs, to verify optimisations; None makes none.
        device: Device for the network.
        precision: ``fp32``, or ``bf16`` for automatic mixed precision.
        batch_size: Images per forward pass; chosen by image size if None.
    """

    white_box = True

    def __init__(
        self,
        module: nn.Module,
        *,
        reference: str,
        checksum: str,
        example_shape: tuple[int, int, int] | None,
        device: torch.device | None = None,
        precision: str = "fp32",
        batch_size: int | None = None,
    ) -> None:
        self.reference = reference
        self.checksum = checksum
        self.precision = precision
        self._device = device or torch.device("cpu")
        self.channels = find_input_channels(module)
        if self._device.type != "cpu":
            self.rounding = 5e-3  # convolutions in TF32
        example = None if example_shape is None else torch.zeros((1, *example_shape))
        self._example_shape, self._chosen = example_shape, batch_size
        self._part = self._suited()
        self._adopt(prepare_network(module, self._device, example))

    def _adopt(self, prepared: PreparedNetwork) -> None:
        self._prepared = prepared
        self._module, self._layout = prepared.module, prepared.layout
        # One batch after another occupies a GPU; a CPU needs one batch per core.
        self._threads = make_network_threads(self._module, self._device)
        self._extractors: dict[tuple[str | None, tuple[int, ...]], Extract] = {}

    def verify(self, inputs: torch.Tensor) -> bool:
        """Compare the optimised network with the original one, and use the original if they differ.

        Args:
            inputs: A few preprocessed images, N×C×H×W.

        Returns:
            Whether both gave the same outputs.
        """
        verified = self._prepared.verified(inputs.to(self._device))
        same = verified is self._prepared
        if not same:
            self._adopt(verified)
        # The other one is needed no more.
        self._prepared = PreparedNetwork(self._module, self._layout, self._module)
        return same

    def _suited(self) -> int:
        if self._chosen:
            return self._chosen
        part = choose_batch(self._example_shape, self._device)
        return part if self.precision == "fp32" else min(1024, 2 * part)  # as many bytes

    def in_half(self) -> ModuleBackend:
        """The same network, with shared weights, in bf16."""
        other = copy.copy(self)
        other.precision = "bf16"
        other._part = other._suited()
        return other

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._device

    @property
    def batch_size(self) -> int:
        """Suitable number of images per call: enough for all threads, several times over if the images are small.

        Threads wait for one another at the end of a call, and while its outputs are processed.
        """
        if self._threads is None:
            return self._part
        turn = self._part * self._threads.count
        pixels = math.prod(self._example_shape or (3, 64, 64))
        return turn * min(8, max(2, CALL_NUMBERS // (turn * pixels)))

    @property
    def module(self) -> nn.Module:
        """The frozen, optimised network, from preprocessed inputs to raw outputs."""
        return self._module

    @override
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = inputs.to(self._device, memory_format=self._layout)
        if self._threads is None:
            result = self._forward(lambda part: self._call(self._module, part), inputs)
        else:
            result = self._threads.map(
                lambda module, part: self._forward(lambda images: self._call(module, images), part),
                inputs,
                compute_equal_size(len(inputs), self._part),
            )
        self.num_classes = result.shape[1]
        return result

    @override
    def embeddings(self, inputs: torch.Tensor, layer: str | None = None) -> torch.Tensor:
        inputs = inputs.to(self._device, memory_format=self._layout)
        key = layer, tuple(inputs.shape[1:])
        if key not in self._extractors:
            self._forward(lambda few: self._call(self._module, few), inputs[:1])  # reports unsuitable inputs
            self._extractors[key] = choose_extractor(self._module, inputs, layer=layer, reference=self.reference)
        extract = self._extractors[key]
        if self._threads is None:
            return self._forward(lambda part: extract(self._module, part), inputs)
        return self._threads.map(
            lambda module, part: self._forward(lambda images: extract(module, images), part),
            inputs,
            compute_equal_size(len(inputs), self._part),
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _forward(self, function: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():  # both belong to the thread that enters them
            result = function(inputs)
        # A plain tensor: one made under inference mode could not serve as data for training.
        return result.float().cpu().clone()

    def _call(self, module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        try:
            result = module(inputs)
        except Exception as error:  # a network of unknown origin may raise anything
            if "out of memory" in str(error).lower():
                raise TargetError(
                    f"{self.reference} ran out of memory on a batch of {len(inputs)}.",
                    hint="Use a smaller --batch-size.",
                ) from error
            missing = describe_missing(error)
            if missing is not None:
                raise TargetError(
                    f"{self.reference} needs more than images: its forward also takes {missing}.",
                    hint="Wrap it in a network whose forward takes the images alone and fills in the rest, and give "
                    "that as python:FILE:FACTORY.",
                ) from error
            raise TargetError(
                f"{self.reference} does not take {_describe_images(inputs)}: "
                f"{(str(error) or type(error).__name__).splitlines()[0]}",
                hint="State the size of the images that it was trained on (--input-size 32): images of any other size "
                "or shape are then resized to that square before the network.",
            ) from error
        scores = take_scores(result, self.reference)
        if scores.ndim == 1 and len(inputs) == 1:
            scores = scores.unsqueeze(0)  # of a network that squeezes the batch of one image away
        if scores.ndim != 2:
            raise TargetError(
                f"{self.reference} returns {'×'.join(map(str, scores.shape))}, not one row of class scores per image.",
                hint="Let it return one tensor of images × classes.",
            )
        return scores


def _describe_images(inputs: torch.Tensor) -> str:
    channels, height, width = inputs.shape[1:]
    shape = "square" if height == width else "not square"
    return f"images of {height}×{width} pixels ({shape}) with {channels} channel{'' if channels == 1 else 's'}"


def find_input_channels(module: nn.Module) -> int | None:
    """Channels of the first convolution; None if the network has none."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            return int(layer.in_channels)
    return None


def choose_batch(shape: tuple[int, int, int] | None, device: torch.device) -> int:
    """Choose the images per batch for inputs of shape (C, H, W) on a device; 128 if the shape is unknown."""
    if shape is None:
        return 128
    # Activations of a batch should stay in reach of the caches on a CPU, and in memory that the allocator keeps: with
    # 64 images per batch ResNet-20 took a quarter longer than with 32, much of it in page faults, and with 256 twice as
    # long. A GPU wants much more at once.
    pixels = shape[1] * shape[2]
    target = (1 << 15) if device.type == "cpu" else (1 << 22)
    # On a CPU, images of 224×224 take no longer in fours than in eights, and their gradients two thirds of the memory
    # (ViT-B on two cores: 2.1 instead of 3.1 GB); images of 96×96 take a tenth longer.
    fewest = 4 if pixels > target else 8
    return max(fewest, min(1024, target // pixels))
