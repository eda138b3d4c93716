"""Examine a target before its results are used: collect the results of the checks as records and as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.errors import QueryBudgetExceeded, TargetError
from securitynet.models.loading.normalization import sample_indices
from securitynet.models.loading.plausibility import check_accuracy
from securitynet.models.loading.sanity_checks import SAMPLE, check_constancy, describe_inconstancy
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets.backends.averaged import PAID_REPEATS, REPEATS, AveragedBackend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.target import Target
from securitynet.records import Check

WARNING = "WARNING"
"""Beginning of the notes that a reader must not miss."""

_VERIFIED = 32
_MIDDLE, _SPREAD = 0.45, 0.225  # close to the normalisation of most networks


@dataclass
class ExaminationResult:
    """The results of the examination of a target.

    Attributes:
        notes: Sentences for the report.
        checks: The checks, as records.
    """

    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def add(self, check: Check) -> None:
        """Add a check, and a warning if it failed."""
        self.checks.append(check)
        if not check.agrees and check.note:
            self.notes.append(f"{WARNING}: {check.note}")


def describe_doubts(checks: Sequence[Check]) -> tuple[str, ...]:
    """Reasons to doubt a target's results, one sentence each; empty if all checks passed."""
    failed = (check for check in checks if not check.agrees)
    return tuple(check.note or f"the {check.what} is {check.found}; {check.said} was stated." for check in failed)


def require_constant(target: Target, *, allow_random: bool) -> None:
    """Raise `TargetError` if a target was not deterministic when examined and ``allow_random`` is false."""
    for check in target.checks:
        if check.what == "answers" and not check.agrees and not allow_random:
            raise describe_inconstancy(check, target.reference)


def examine(target: Target, dataset: ImageDataset, *, allow_random: bool = False) -> Target:
    """Examine a target that was made in Python, as `load_target` examines the targets that it loads.

    Args:
        target: A target without checks; one that has some is returned unchanged.
        dataset: A dataset with labelled images.
        allow_random: Whether to average the outputs of a target that is not deterministic.

    Raises:
        TargetError: If the target fails on the images.
    """
    if target.checks or dataset.images is None or isinstance(target.backend, RecordedBackend):
        return target
    findings = ExaminationResult(list(target.notes))
    paid = target.backend.charges
    indices = sample_indices(dataset, SAMPLE // 2 if paid else 4 * SAMPLE)
    images = dataset.batch(indices)
    # These queries are not an adversary's, so they are counted only if they may cost money.
    view = target if paid else replace_preprocessing(target, target.preprocessing, query_counter=QueryCounter())
    examined = examine_constancy(view, images, findings, paid=paid, allow_random=allow_random)
    outputs = query_outputs(examined, images)
    predicted, lowest = outputs.argmax(dim=1).numpy(), outputs.argmin(dim=1).numpy()
    examine_accuracy(findings, predicted, indices, dataset, model_names=target.class_names, lowest=lowest)
    return Target(
        examined.backend,
        head=target.head,
        preprocessing=target.preprocessing,
        access=target.access,
        query_counter=target.query_counter,
        precision=target.precision,
        notes=tuple(findings.notes),
        checks=tuple(findings.checks),
        class_names=target.class_names,
    )


def review_accuracy(
    target: Target,
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    names: Sequence[str],
    stated: float | None,
    *,
    lowest: NDArray[np.int64] | None = None,
) -> None:
    """Check a target's accuracy again, on all non-members instead of a sample; replace the earlier checks and notes.

    Args:
        target: The target; it is changed in place.
        predicted: Classes predicted for the non-members, N int64.
        labels: Their true classes, N int64.
        names: Names of the classes.
        stated: Stated test accuracy, in [0, 1]; by default the one known since loading.
        lowest: Classes with the lowest scores, N int64; None if they are unknown.
    """
    if not len(labels):
        return
    earlier = [check for check in target.checks if check.what in ("chance", "sign", "class order", "accuracy")]
    warnings = {f"{WARNING}: {check.note}" for check in earlier}
    if stated is None:
        stated = next((float(check.said) for check in earlier if check.what == "accuracy"), None)
    findings = ExaminationResult(
        [note for note in target.notes if note not in warnings],
        [check for check in target.checks if check not in earlier],
    )
    model_names = target.class_names
    for check in check_accuracy(predicted, labels, names, model_names=model_names, stated=stated, lowest=lowest):
        findings.add(check)
    target.notes, target.checks = tuple(findings.notes), tuple(findings.checks)


def query_outputs(target: Target, images: torch.Tensor) -> torch.Tensor:
    """Raw outputs for images, computed in batches: N×K."""
    step = target.batch_size
    return torch.cat([target.raw_outputs(images[i : i + step]) for i in range(0, len(images), step)])


def replace_preprocessing(
    target: Target, preprocessing: Preprocessing, *, query_counter: QueryCounter | None = None
) -> Target:
    """Copy a target with another preprocessing.

    Args:
        target: The target.
        preprocessing: The new preprocessing.
        query_counter: A new query counter; None keeps the target's own.
    """
    return Target(
        target.backend,
        head=target.head,
        preprocessing=preprocessing,
        access=target.access,
        query_counter=query_counter or target.query_counter,
        precision=target.precision,
    )


def verify_optimisations(
    target: Target, backend: ModuleBackend, images: torch.Tensor, findings: ExaminationResult
) -> None:
    """Compare the optimised network with the original one on real images, with and without normalisation.

    Args:
        target: The target, whose preprocessing is used.
        backend: Its backend; the original network is used from now on if the outputs differ.
        images: N×C×H×W, uint8 or in [0, 1]; the first few are used.
        findings: Receives a note if the outputs differ.
    """
    inputs = target.preprocessing(images[:_VERIFIED].to(backend.device))
    same = backend.verify(torch.cat([inputs, (inputs - _MIDDLE) / _SPREAD]))
    if not same:
        findings.notes.append("the network runs without optimisations: with them, it did not give the same outputs.")


def examine_constancy(
    target: Target, images: torch.Tensor, findings: ExaminationResult, *, paid: bool = False, allow_random: bool = False
) -> Target:
    """Check whether a target is deterministic; if not, average its outputs if this is allowed.

    Args:
        target: The target.
        images: N×C×H×W, uint8 or in [0, 1].
        findings: Receives the check and its notes.
        paid: Whether queries may cost money, so that fewer are made.
        allow_random: Whether to average the outputs of a target that is not deterministic.

    Returns:
        The target, or one whose outputs are averages.

    Raises:
        TargetError: If the target fails on the images.
    """
    try:
        constancy = check_constancy(target, images, paid=paid)
    except (TargetError, QueryBudgetExceeded) as error:
        if not paid:
            raise
        findings.notes.append(f"whether the endpoint is deterministic could not be checked: {error.message}")
        return target
    check = constancy.check()
    findings.add(check)
    if check.agrees or not allow_random:
        return target
    repeats = PAID_REPEATS if paid else REPEATS
    findings.notes.append(f"{WARNING}: its outputs are averages over {repeats} repeats (--allow-random).")
    return Target(
        AveragedBackend(target.backend, repeats),
        head=target.head,
        preprocessing=target.preprocessing,
        access=target.access,
        query_counter=target.query_counter,
        precision=target.precision,
    )


def examine_accuracy(
    findings: ExaminationResult,
    predicted: NDArray[np.int64],
    indices: NDArray[np.int64],
    dataset: ImageDataset,
    *,
    model_names: Sequence[str] = (),
    stated: float | None = None,
    lowest: NDArray[np.int64] | None = None,
) -> None:
    """Check the accuracy of a target on a sample.

    Args:
        findings: Receives the checks.
        predicted: Classes predicted for the sample, N int64.
        indices: Records of the sample, N int64; only those of the test part count, if there are any.
        dataset: The dataset with the labels.
        model_names: Names of the model's classes, if its source states them.
        stated: Stated test accuracy, in [0, 1]; None if there is none.
        lowest: Classes with the lowest scores for the sample, N int64; None if they are unknown.
    """
    test = dataset.parts.get("test")
    if test is not None and len(inside := np.flatnonzero(np.isin(indices, test))):
        predicted, indices = predicted[inside], indices[inside]
        lowest = None if lowest is None else lowest[inside]
    for check in check_accuracy(
        predicted, dataset.labels[indices], dataset.class_names, model_names=model_names, stated=stated, lowest=lowest
    ):
        findings.add(check)
