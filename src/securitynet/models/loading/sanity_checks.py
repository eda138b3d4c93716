"""Check on a few images, before long work, that a target is deterministic.

A network whose outputs depend on the batch (batch norms without running statistics) or on chance (dropout left on, a
changing endpoint) seems to leak information it does not have, because attacks compare outputs for one image with
outputs for another. So some images are queried twice, then in other batches and another order, and a few alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from securitynet.errors import AccessDenied, QueryBudgetExceeded, TargetError
from securitynet.models.targets.target import Target
from securitynet.records import Check

SAMPLE = 64
"""Number of images that are queried twice."""

PAID_SAMPLE = 8
"""Number of images that an endpoint is sent again."""

_ALONE = 8
_PAID_ALONE = 2
# A repeated computation gives the same numbers, except that GPU threads may add in another order.
_REPEAT_TOLERANCE = 1e-4
_HALF_TOLERANCE = 5e-2  # bfloat16 keeps eight bits

Kind = Literal["same", "random", "batch"]


@dataclass(frozen=True)
class Difference:
    """The difference between two sets of outputs for the same images.

    Attributes:
        largest: Largest difference of two outputs, relative to the largest output.
        other_class: Number of images for which another class has the highest output.
        images: Number of images.
    """

    largest: float
    other_class: int
    images: int


@dataclass(frozen=True)
class Constancy:
    """Whether outputs are a function of the image.

    Attributes:
        kind: ``same``; ``random`` if the same batch gives other outputs the second time; ``batch`` if outputs depend on
            the other images of a batch.
        difference: The largest difference that was seen.
        reason: The likely cause, as far as the network shows it.
    """

    kind: Kind
    difference: Difference
    reason: str = ""

    def check(self) -> Check:
        """The result as a record."""
        images = self.difference.images
        if self.kind == "same":
            return Check(what="answers", said="the same", found=f"the same for {images} images", agrees=True)
        share, classes = f"{self.difference.largest:.2g}", self.difference.other_class
        apart = f"by up to {share} of the largest output, and with another class for {classes} of {images}"
        if self.kind == "random":
            note = f"queried twice with the same {images} images, it gives different outputs ({apart}): {self.reason}."
        else:
            note = f"its output for an image depends on the rest of the batch ({apart}): {self.reason}."
        return Check(what="answers", said="the same", found=f"{self.kind}: differ {apart}", agrees=False, note=note)


def check_constancy(target: Target, images: torch.Tensor, *, paid: bool = False) -> Constancy:
    """Query a target for the same images twice, in other batches and another order, and alone.

    Args:
        target: The target; its query counter counts the images.
        images: N×C×H×W, uint8 or in [0, 1].
        paid: Whether queries may cost money: fewer images are then sent, and stored outputs are requested once more.

    Raises:
        TargetError: If the target fails on all images, or on a single image.
        QueryBudgetExceeded: If its query budget does not cover the images.
    """
    images = images[: PAID_SAMPLE if paid else SAMPLE]
    first = _ask(target, images, fresh=not paid)
    again = _ask(target, images, fresh=True)
    repeat = compare_outputs(first, again)
    on_gpu = target.backend.device.type != "cpu"
    if repeat.largest > (10 if on_gpu or paid else 1) * _REPEAT_TOLERANCE:
        return Constancy("random", repeat, _why_random(target, paid))
    tolerance = max(target.backend.rounding, _HALF_TOLERANCE if target.precision == "bf16" else 0.0)
    generator = torch.Generator().manual_seed(0)
    if not paid and len(images) > 2:
        order = torch.randperm(len(images), generator=generator)
        parts = torch.split(order, max(1, 3 * len(images) // 8))
        mixed = torch.empty_like(first)
        for part in parts:
            mixed[part] = _ask(target, images[part])
        batch = compare_outputs(first, mixed)
        if batch.largest > tolerance:
            return Constancy("batch", batch, _why_batch(target))
    few = min(len(images), _PAID_ALONE if paid else _ALONE)
    try:
        alone = torch.cat([_ask(target, images[at : at + 1], fresh=True) for at in range(few)])
    except QueryBudgetExceeded:
        raise
    except TargetError as error:
        whole = Difference(1.0, few, few)
        return Constancy("batch", whole, f"it fails on a single image ({error.message}); {_why_batch(target)}")
    single = compare_outputs(first[:few], alone)
    if single.largest > tolerance:
        return Constancy("batch", single, _why_batch(target))
    return Constancy("same", Difference(repeat.largest, 0, len(images)))


def compare_outputs(first: torch.Tensor, second: torch.Tensor) -> Difference:
    """Compare two sets of outputs, N×K each. Minus infinity, the logarithm of zero, equals itself."""
    if not len(first):
        return Difference(0.0, 0, 0)
    finite = first.isfinite() & second.isfinite()
    largest = float(torch.where(first.isfinite(), first.abs(), 0.0).max())
    gap = torch.where(finite, (first - second).abs(), 0.0)
    gap = torch.where(finite | (first == second), gap, torch.inf)
    share = float(gap.max()) / max(largest, 1e-12) if float(gap.max()) > 0 else 0.0
    return Difference(share, int((first.argmax(dim=1) != second.argmax(dim=1)).sum()), len(first))


def describe_inconstancy(check: Check, reference: str) -> TargetError:
    """Make the error for a target that is not deterministic."""
    return TargetError(
        f"{reference} can't be assessed: {check.note}",
        hint="Fix it (model.eval(), running statistics of batch norms, a fixed version behind the endpoint), or "
        "measure averages over repeated queries with --allow-random; the results are then marked.",
    )


def _ask(target: Target, images: torch.Tensor, *, fresh: bool = True) -> torch.Tensor:
    step = target.batch_size
    return torch.cat([target.raw_outputs(images[i : i + step], fresh=fresh) for i in range(0, len(images), step)])


def _network(target: Target) -> nn.Module | None:
    try:
        return target.backend.module
    except AccessDenied:
        return None


def _why_random(target: Target, paid: bool) -> str:
    if paid:
        return "the endpoint changes, adds noise, or now serves another model than in earlier queries"
    if _network(target) is None:
        return "a part of it is random, such as dropout exported in training mode"
    return "a part of it is random, such as dropout left on (F.dropout without training=self.training)"


def _why_batch(target: Target) -> str:
    network = _network(target)
    norms = [] if network is None else [part for part in network.modules() if _norms_by_batch(part)]
    if norms:
        count = "a batch norm has" if len(norms) == 1 else f"{len(norms)} batch norms have"
        return f"{count} no running statistics (track_running_stats=False, or not saved)"
    return "its batch norms probably use the statistics of the batch (training mode, or no running statistics)"


def _norms_by_batch(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.batchnorm._BatchNorm) and (part.training or part.running_mean is None)
