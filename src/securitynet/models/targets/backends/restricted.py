"""`InterfaceBackend`: a backend behind an interface, which restricts what of its outputs anyone sees."""

from __future__ import annotations

import torch

from securitynet.files import stable_hash
from securitynet.models.targets import heads
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.wrapped import WrappedBackend
from securitynet.models.targets.heads import Head
from securitynet.models.targets.interface import Interface


class InterfaceBackend(WrappedBackend):
    """A backend whose raw outputs pass an interface before anybody sees them.

    Args:
        inner: Where posteriors come from.
        head: What the inner backend emits.
        interface: What becomes of them.
    """

    interface: Interface

    def __init__(self, inner: Backend, head: Head, interface: Interface) -> None:
        super().__init__(inner)
        self.inner_head: Head = head
        self.interface = interface
        self.reference = f"{inner.reference} ({interface.describe()})"
        self.checksum = stable_hash({"inner": inner.checksum, "head": head, **interface.canonical()}, 64)

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `Backend.outputs`: what the interface answers."""
        return self.seen(self.inner.outputs(inputs))

    def seen(self, raw: torch.Tensor) -> torch.Tensor:
        """What the interface answers for raw outputs of the inner backend, N×K."""
        heads.check_finite(raw)
        return self.interface.answers(heads.to_posteriors(raw, self.inner_head), raw.argmax(dim=1))

    def with_interface(self, interface: Interface) -> InterfaceBackend:
        """The same inner backend, with a further interface after this one."""
        return InterfaceBackend(self.inner, self.inner_head, self.interface.then(interface))
