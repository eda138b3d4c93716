"""`WrappedBackend`: the common base of backends that wrap another backend."""

from __future__ import annotations

import torch
from typing_extensions import override

from securitynet.models.targets.backends.base import Backend


class WrappedBackend(Backend):
    """A backend that changes the outputs of another one, whose classes, channels, device and batch size it shares.

    Args:
        inner: The backend that computes the outputs.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.channels = inner.channels
        self.within_process = inner.within_process
        self.weights = inner.weights

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the inner backend."""
        return self.inner.num_classes

    @num_classes.setter
    def num_classes(self, count: int | None) -> None:
        self.inner.num_classes = count

    @property
    def architecture(self) -> str | None:
        """That of the inner backend."""
        return self.inner.architecture

    @architecture.setter
    def architecture(self, reference: str | None) -> None:
        self.inner.architecture = reference

    @property
    @override
    def device(self) -> torch.device:
        return self.inner.device

    @property
    @override
    def batch_size(self) -> int:
        return self.inner.batch_size
