"""`InterfaceBackend`: a backend behind an interface that hides part of its outputs."""

from __future__ import annotations

import torch
from typing_extensions import override

from securitynet.files import hash_stably
from securitynet.models.targets import heads
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.wrapped import WrappedBackend
from securitynet.models.targets.heads import Head
from securitynet.models.targets.interface import Interface


class InterfaceBackend(WrappedBackend):
    """A backend whose raw outputs pass through an interface.

    Args:
        inner: The backend that computes outputs.
        head: Kind of the inner backend's outputs.
        interface: Changes the posteriors.
    """

    interface: Interface

    def __init__(self, inner: Backend, head: Head, interface: Interface) -> None:
        super().__init__(inner)
        self.inner_head: Head = head
        self.interface = interface
        self.reference = f"{inner.reference} ({interface.describe()})"
        self.checksum = hash_stably({"inner": inner.checksum, "head": head, **interface.canonical()}, 64)

    @override
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.seen(self.inner.outputs(inputs))

    def seen(self, raw: torch.Tensor) -> torch.Tensor:
        """Apply the interface to raw outputs of the inner backend, N×K."""
        heads.check_finite_outputs(raw)
        return self.interface.apply(heads.to_posteriors(raw, self.inner_head), raw.argmax(dim=1))

    def with_interface(self, interface: Interface) -> InterfaceBackend:
        """The same inner backend, with a further interface after this one."""
        return InterfaceBackend(self.inner, self.inner_head, self.interface.then(interface))
