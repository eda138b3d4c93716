"""Devices, and torch's errors in plain words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from securitynet.errors import ConfigurationError, ModelError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device for ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigurationError: If the name is invalid or there is no such device.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(f"There is no device {device!r}.", hint="Use auto, cpu, cuda or cuda:N.") from error
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= count:
            raise ConfigurationError(
                f"The device {device} does not exist: torch sees {count} CUDA devices.", hint="Use --device cpu."
            )
        return torch.device("cuda", place.index or 0)
    return place


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether passes through a network are computed in bfloat16.

    Args:
        precision: ``fp32``; ``bf16``; or ``auto``, which is bf16 where it is faster: on GPUs that have it, and on
            processors that multiply matrices in it (AMX). A Xeon with no more than instructions for vectors of bf16
            (AVX512-BF16) took 1.4 times as long as in float32 for a step of `airbench`.
        device: Where the network is.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private, and all that torch 2.6 has; a later version without it computes in float32.
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and check is not None and bool(check())


class _SkipInitialValues(TorchFunctionMode):
    """Draws no initial values: for tensors that hold none, torch would run Python versions of its random functions."""

    _SKIPPED = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.zero_, torch.Tensor.fill_)

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in self._SKIPPED and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def use_meta_device() -> Iterator[None]:
    """Make tensors that have shapes and no values, for networks of which only the shapes matter."""
    with torch.device("meta"), _SkipInitialValues():
        yield


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
    """Turn torch's errors on the first batch into a `ModelError` that says what to change."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "out of memory" in text.lower():
            raise ModelError("The training ran out of memory.", hint="Use a smaller --batch-size.") from error
        if "more than 1 value per channel" in text:
            raise ModelError(
                "The network's batch norms cannot learn from a batch of one record.", hint="Use a larger --batch-size."
            ) from error
        raise ModelError(
            f"The network cannot be trained on these images: {text}", hint="Check --image-size and --channels."
        ) from error


@contextlib.contextmanager
def use_deterministic_kernels(device: torch.device) -> Iterator[None]:
    """Make cuDNN use deterministic kernels inside the block, and restore its settings afterwards."""
    if device.type != "cuda":
        yield
        return
    backend = torch.backends.cudnn
    before = backend.benchmark, backend.deterministic
    backend.benchmark, backend.deterministic = False, True
    try:
        yield
    finally:
        backend.benchmark, backend.deterministic = before
