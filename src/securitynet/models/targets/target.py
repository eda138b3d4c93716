"""`Target`: the model under attack, behind an interface that enforces access and counts queries."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from securitynet.errors import AccessDenied, TargetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets import heads
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.backends.restricted import InterfaceBackend
from securitynet.models.targets.heads import Head
from securitynet.models.targets.interface import Interface
from securitynet.models.targets.outputs import take_scores
from securitynet.models.targets.query_count import QueryCounter, compute_image_keys
from securitynet.records import Access, Check, TargetIdentity

_FIXED_MEMORY = 1 << 22
"""Bytes of a target beside its weights, about."""


class Target:
    """The model under attack: it takes images in [0, 1] and returns outputs.

    It normalises images itself and knows the kind of its head.

    Args:
        backend: The backend that computes raw outputs.
        head: Kind of the backend's outputs.
        preprocessing: Applied to images before the backend.
        access: Access of the adversary.
        query_counter: Counts queries; shared by all views of one target.
        precision: Arithmetic of the backend, part of the cache key of its signals.
        notes: What was determined while loading, for the report ("auto normalisation chose ...").
        checks: Results of the sanity checks: that its outputs are well formed, and its accuracy is as stated.
        class_names: Names in the order of the outputs, if the model's source states them.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        head: Head = "logits",
        preprocessing: Preprocessing | None = None,
        access: Access = Access.BLACK_BOX,
        query_counter: QueryCounter | None = None,
        precision: str = "fp32",
        notes: tuple[str, ...] = (),
        checks: tuple[Check, ...] = (),
        class_names: tuple[str, ...] = (),
    ) -> None:
        self.backend = backend
        self.head: Head = head
        self.preprocessing = preprocessing or Preprocessing()
        self.access = access
        self.query_counter = query_counter or QueryCounter()
        self.precision = precision
        self.notes = notes
        self.checks = checks
        self.class_names = class_names

    def __repr__(self) -> str:
        return f"Target({self.reference!r}, {self.head}, {self.preprocessing.describe()}, {self.access.value})"

    @property
    def reference(self) -> str:
        """As the user writes it."""
        return self.backend.reference

    @property
    def architecture(self) -> str | None:
        """From which networks like it are built and trained: a name or a reference; None if that is not known."""
        return self.backend.architecture

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None until the first outputs show it."""
        return self.backend.num_classes

    @property
    def batch_size(self) -> int:
        """Suitable number of images per batch."""
        return self.backend.batch_size

    @property
    def identity(self) -> TargetIdentity:
        """The identity that trials record."""
        return TargetIdentity(
            reference=self.reference,
            checksum=self.backend.checksum,
            preprocessing=self.preprocessing.canonical(),
            head=self.head,
        )

    def under(self, access: Access) -> Target:
        """A view of this target with the given access; it shares the backend and the query counter.

        Raises:
            AccessDenied: If it would allow more than this view does: a view can only narrow.
        """
        if not self.access.covers(access):
            raise AccessDenied(f"{self.reference} is under {self.access.value} access; it can't be widened.")
        return self._view(self.backend, self.head, access)

    @property
    def interface(self) -> Interface | None:
        """The interface that hides a part of the outputs; None if there is none."""
        return self.backend.interface

    def in_half(self) -> Target | None:
        """A view that computes in bf16 and shares the query counter; None if that is impossible or already so."""
        backend = self.backend.in_half() if self.precision == "fp32" else None
        if backend is None:
            return None
        view = self._view(backend, self.head, self.access)
        view.precision = "bf16"
        return view

    def through(self, interface: Interface) -> Target:
        """A view of this target behind an interface, under black-box access.

        Posteriors that the interface hides are 0; the highest output is always that of the predicted class. The
        view shares the query counter and has a checksum of its own. Its signals are computed from those of this target,
        so a record that has been queried is not queried again. If the target already has an interface, the new one is
        applied after it.
        """
        inner = self.backend
        if isinstance(inner, InterfaceBackend):
            backend = inner.with_interface(interface)
        else:
            backend = InterfaceBackend(inner, self.head, interface)
        return self._view(backend, backend.interface.head, Access.BLACK_BOX)

    def without_interface(self) -> Target:
        """The target without its interface, under black-box access: for the owner's measurements, and for the cache.

        Attacks must not use this view: it shows what the interface hides.
        """
        backend = self.backend
        if not isinstance(backend, InterfaceBackend):
            return self
        return self._view(backend.inner, backend.inner_head, Access.BLACK_BOX)

    def _view(self, backend: Backend, head: Head, access: Access) -> Target:
        return Target(
            backend,
            head=head,
            preprocessing=self.preprocessing,
            access=access,
            query_counter=self.query_counter,
            precision=self.precision,
            notes=self.notes,
            checks=self.checks,
            class_names=self.class_names,
        )

    def raw_outputs(
        self, images: torch.Tensor, *, keys: list[bytes] | None = None, fresh: bool = False
    ) -> torch.Tensor:
        """What the model emits, N×K float32 on the CPU, counted and checked.

        Args:
            images: N×C×H×W, uint8, or floating point in [0, 1].
            keys: Their `compute_image_keys`, if the caller has them already.
            fresh: Compute them again even if the backend has stored them.

        Raises:
            TargetError: If the images do not suit the model, or an output is not finite.
            QueryBudgetExceeded: If a query cap would be overrun.
        """
        self._check(images)
        self.query_counter.charge((keys or compute_image_keys(images)) * self.backend.repeats)
        inputs = self.preprocessing(images.to(self.backend.device))
        outputs = self.backend.fresh_outputs(inputs) if fresh else self.backend.outputs(inputs)
        if outputs.ndim != 2 or len(outputs) != len(images):
            raise TargetError(
                f"{self.reference} returned outputs of shape {tuple(outputs.shape)} for {len(images)} images; "
                "one row per image is expected."
            )
        heads.check_finite_outputs(outputs)
        return outputs

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits up to a constant per row, N×K float32."""
        return heads.to_logits(self.raw_outputs(images), self.head)

    def posteriors(self, images: torch.Tensor) -> torch.Tensor:
        """Posteriors, N×K float32, rows summing to 1."""
        return heads.to_posteriors(self.raw_outputs(images), self.head)

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Predicted classes, N int64."""
        return self.raw_outputs(images).argmax(dim=1)

    def embeddings(
        self, images: torch.Tensor, *, layer: str | None = None, keys: list[bytes] | None = None
    ) -> torch.Tensor:
        """What the second-to-last layer emits, N×D float32 on the CPU, counted and checked.

        Args:
            images: N×C×H×W, uint8, or floating point in [0, 1].
            layer: Name of another layer to take instead; see `securitynet.models.targets.embeddings.choose_extractor`.
            keys: Their `compute_image_keys`, if the caller has them already.

        Raises:
            AccessDenied: Under black-box access.
            ModelError: If there is no such layer, or the layer cannot be located.
            TargetError: If the images do not suit the model, or an embedding is not finite.
            QueryBudgetExceeded: If a query cap would be overrun.
        """
        self.require(Access.WHITE_BOX, "embeddings")
        self._check(images)
        self.query_counter.charge(keys or compute_image_keys(images))
        embeddings = self.backend.embeddings(self.preprocessing(images.to(self.backend.device)), layer)
        bad = int((~embeddings.isfinite()).any(dim=1).sum())
        if bad:
            raise TargetError(
                f"The embeddings of {self.reference} are not finite for {bad} of {len(embeddings)} images.",
                hint="Check the weights, the preprocessing (--normalize) and the precision (--precision fp32).",
            )
        return embeddings

    @property
    def module(self) -> nn.Module:
        """The frozen network with its preprocessing: images in [0, 1] in, logits out, gradients to the images.

        Calls of it are white-box work and are not counted as queries.

        Raises:
            AccessDenied: Under black-box access.
        """
        self.require(Access.WHITE_BOX, "the module")
        return _Whole(self.backend.module, self.preprocessing, self.head)

    def require(self, access: Access, what: str) -> None:
        """Raise `AccessDenied` unless the adversary has ``access``."""
        if not self.access.covers(access):
            raise AccessDenied(
                f"{what} of {self.reference} needs {access.value} access; the threat model gives {self.access.value}.",
                hint=f"Run with --access {access.value} if your adversary has it.",
            )

    def _check(self, images: torch.Tensor) -> None:
        if images.ndim != 4:
            raise TargetError(f"Images must be N×C×H×W, not of shape {tuple(images.shape)}.")
        wanted = self.backend.channels
        if wanted is not None and images.shape[1] != wanted:
            raise TargetError(
                f"{self.reference} takes {_words_of_channels(wanted)}; these are "
                f"{_words_of_channels(images.shape[1])}.",
                hint=f"Convert them with --channels {wanted}."
                if wanted in (1, 3)
                else "Datasets hold grey (1 channel) or colour images (3): other models cannot be queried.",
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise TargetError(f"Images must be uint8, or floating point in [0, 1]; these are {images.dtype}.")
        if images.dtype != torch.uint8 and len(images):
            low, high = float(images.detach().min()), float(images.detach().max())
            if not (low >= -1e-4 and high <= 1 + 1e-4):
                raise TargetError(f"Images must lie in [0, 1]; these range from {low:g} to {high:g}.")


def estimate_target_memory(target: Target) -> int | None:
    """Estimate the bytes that a target takes while nothing runs on it; None if it is no network in this process.

    Args:
        target: The target.
    """
    if not isinstance(target.backend, ModuleBackend):
        return None
    module = target.backend.module
    weights = sum(tensor.nbytes for tensor in itertools.chain(module.parameters(), module.buffers()))
    return 2 * weights + _FIXED_MEMORY  # the weights as they were read, and as optimised


def _words_of_channels(count: int) -> str:
    kind = {1: "grey ", 3: "colour "}.get(count, "")
    return f"{kind}images ({count} channel{'' if count == 1 else 's'})"


class _Whole(nn.Module):
    def __init__(self, module: nn.Module, preprocessing: Preprocessing, head: Head) -> None:
        super().__init__()
        self.inner = module
        self.preprocessing = preprocessing
        self.head: Head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.inner(self.preprocessing(images))
        return heads.to_logits(take_scores(outputs, "The network"), self.head)
