"""What is to be reconstructed: the target, its differentiable network, the shape of the images, requested classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from securitynet.errors import ConfigurationError, TargetError
from securitynet.memory import read_available_memory
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.module import choose_batch
from securitynet.models.targets.signals import check_class_count
from securitynet.models.targets.target import Target

_PROBES = 4
"""Number of random images on which the network must have a non-zero gradient."""

_BYTES = 40
"""Bytes for each number of the reconstructions: the images, the best so far, and what compares them with real ones."""


@dataclass(frozen=True, eq=False)
class AttackedClasses:
    """The target of an inversion attack, and the classes to reconstruct.

    Attributes:
        target: The target.
        network: Maps images in [0, 1] to logits and propagates gradients to the images; None under black-box access.
        shape: Shape (channels, height, width) of the images.
        labels: The requested classes, L.
        names: Their names.
        classes: The requested class of each reconstruction, L·Q int64 on the CPU, Q in a row for each class.
        restarts: Number of reconstructions of each class, Q.
        num_classes: Number of classes of the target.
        device: Device of the target.
        part: Number of images per batch; it depends on their size, not on the machine.
    """

    target: Target
    network: nn.Module | None
    shape: tuple[int, int, int]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    classes: torch.Tensor
    restarts: int
    num_classes: int
    device: torch.device
    part: int

    @property
    def module(self) -> nn.Module:
        """The network, for attacks that need gradients."""
        assert self.network is not None, "this attack was prepared without gradients"
        return self.network

    @classmethod
    def of(
        cls,
        target: Target,
        data: TrialData,
        labels: tuple[int, ...] | None,
        restarts: int,
        *,
        gradient: bool = True,
    ) -> AttackedClasses:
        """Check everything that can be checked before long work.

        Args:
            target: The target.
            data: Data of the trial.
            labels: The requested classes; None for all.
            restarts: Number of reconstructions of each class.
            gradient: Whether the attack needs gradients, and not only outputs.

        Raises:
            AccessDenied: If the target is not a network, or its access does not permit using the network.
            ConfigurationError: If there are no images, or a class does not exist or has no training images.
            TargetError: If the network does not take images of this shape, has another number of classes than the
                dataset, or lets no gradient through.
        """
        dataset = data.dataset
        module = target.module if gradient else None
        if dataset.images is None:
            raise ConfigurationError(
                f"{dataset.reference} has recorded outputs but no images to compare reconstructions with.",
                hint="Give the images with --dataset.",
            )
        chosen = tuple(range(dataset.num_classes)) if labels is None else labels
        if max(chosen) >= dataset.num_classes:
            raise ConfigurationError(
                f"There is no class {max(chosen)}: {dataset.reference} has {dataset.num_classes}, numbered from 0."
            )
        check_reconstruction_memory(len(chosen), restarts, dataset.image_shape)
        trained = set(dataset.labels[data.splits.members].tolist())
        if missing := [label for label in chosen if label not in trained]:
            raise ConfigurationError(
                f"No training image of class {dataset.class_names[missing[0]]!r} is known.",
                hint="Choose the classes to reconstruct with `classes`.",
            )
        device = target.backend.device
        _check_network(target, module, dataset.image_shape, device, data)
        return cls(
            target,
            module,
            dataset.image_shape,
            chosen,
            tuple(dataset.class_names[label] for label in chosen),
            torch.tensor(chosen, dtype=torch.int64).repeat_interleave(restarts),
            restarts,
            dataset.num_classes,
            device,
            choose_batch(dataset.image_shape, device),
        )


def check_reconstruction_memory(classes: int, restarts: int, shape: tuple[int, int, int]) -> None:
    """Refuse reconstructions that do not fit into the memory.

    Args:
        classes: Number of requested classes.
        restarts: Number of reconstructions of each.
        shape: (C, H, W) of the images.

    Raises:
        ConfigurationError: If more is needed than is free.
    """
    needed, free = _BYTES * classes * restarts * math.prod(shape), read_available_memory()
    if free is None or needed <= free:
        return
    raise ConfigurationError(
        f"{restarts} reconstructions of each of {classes:,} classes with {shape[1]}×{shape[2]} pixels take about "
        f"{needed / 1e9:.0f} GB of memory; {free / 1e9:.0f} GB are free.",
        hint="Reconstruct some of the classes (classes), fewer of each (restarts), or smaller images (--image-size).",
    )


def _check_network(
    target: Target, module: nn.Module | None, shape: tuple[int, int, int], device: torch.device, data: TrialData
) -> None:
    wanted = target.backend.channels
    if wanted is not None and wanted != shape[0]:
        raise TargetError(
            f"{target.reference} takes images of {wanted} channels; those of {data.dataset.reference} have {shape[0]}.",
            hint=f"Convert them with --channels {wanted}.",
        )
    probe = torch.rand((_PROBES, *shape), generator=torch.Generator().manual_seed(0)).to(device)
    try:
        if module is None:
            # The auditor's check, not a query of the adversary.
            check_class_count(target, target.backend.outputs(target.preprocessing(probe)).shape[1], data.dataset)
            return
        with torch.enable_grad():
            logits = module(probe.requires_grad_())
    except RuntimeError as error:
        raise TargetError(
            f"{target.reference} does not take images of {'×'.join(map(str, shape))}: {str(error).splitlines()[0]}",
            hint="Set the size it was trained at with --input-size.",
        ) from error
    check_class_count(target, logits.shape[1], data.dataset)
    if not logits.requires_grad or not torch.autograd.grad(logits[:, 0].sum(), probe)[0].any():
        raise TargetError(
            f"{target.reference} propagates no gradient to its input, which inversion needs.",
            hint="Check for operations that cut it off, such as rounding or `detach`.",
        )
