"""A target is examined before it is believed: what its checks find is collected here, as records and as sentences."""

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
from securitynet.models.loading.sanity_checks import SAMPLE, check_answers, stop
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
_MIDDLE, _SPREAD = 0.45, 0.225  # near what most networks are normalised by


@dataclass
class Findings:
    """What is found out about a target.

    Attributes:
        notes: Sentences for the report.
        checks: Records.
    """

    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def add(self, check: Check) -> None:
        """Keep a check, and say it where it fails."""
        self.checks.append(check)
        if not check.agrees and check.note:
            self.notes.append(f"{WARNING}: {check.note}")


def doubts(checks: Sequence[Check]) -> tuple[str, ...]:
    """What speaks against believing a target's results, a sentence each; empty if nothing does."""
    failed = (check for check in checks if not check.agrees)
    return tuple(check.note or f"the {check.what} is {check.found}, where {check.said} is said." for check in failed)


def require_constant(target: Target, *, allow_random: bool) -> None:
    """Raise `TargetError` if a target was found not to answer the same for the same image, and that is not allowed."""
    for check in target.checks:
        if check.what == "answers" and not check.agrees and not allow_random:
            raise stop(check, target.reference)


def examine(target: Target, dataset: ImageDataset, *, allow_random: bool = False) -> Target:
    """Examine a target that was made in Python, as `load_target` examines those that it loads.

    Args:
        target: Without checks; one that has some is returned as it is.
        dataset: With labelled images.
        allow_random: See `securitynet.models.loading.load.load_target`.

    Raises:
        TargetError: If it does not answer.
    """
    if target.checks or dataset.images is None or isinstance(target.backend, RecordedBackend):
        return target
    findings = Findings(list(target.notes))
    paid = target.backend.charges
    indices = sample_indices(dataset, SAMPLE // 2 if paid else 4 * SAMPLE)
    images = dataset.batch(indices)
    # What is asked here is no adversary's question; but it may cost something.
    view = target if paid else with_preprocessing(target, target.preprocessing, query_counter=QueryCounter())
    found = examine_answers(view, images, findings, paid=paid, allow_random=allow_random)
    predicted = ask(found, images).argmax(dim=1).numpy()
    examine_accuracy(findings, predicted, indices, dataset, model_names=target.class_names)
    return Target(
        found.backend,
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
    target: Target, predicted: NDArray[np.int64], labels: NDArray[np.int64], names: Sequence[str], stated: float | None
) -> None:
    """Judge a target's accuracy again, on all non-members instead of a sample: its checks and notes are replaced.

    Args:
        target: Changed in place.
        predicted: Classes predicted for the non-members, N.
        labels: Their classes, N.
        names: Of the classes.
        stated: Test accuracy that is stated, in [0, 1]; by default what its loading knew of.
    """
    if not len(labels):
        return
    earlier = [check for check in target.checks if check.what in ("chance", "class order", "accuracy")]
    said = {f"{WARNING}: {check.note}" for check in earlier}
    if stated is None:
        stated = next((float(check.said) for check in earlier if check.what == "accuracy"), None)
    findings = Findings(
        [note for note in target.notes if note not in said],
        [check for check in target.checks if check not in earlier],
    )
    for check in check_accuracy(predicted, labels, names, model_names=target.class_names, stated=stated):
        findings.add(check)
    target.notes, target.checks = tuple(findings.notes), tuple(findings.checks)


def ask(target: Target, images: torch.Tensor) -> torch.Tensor:
    """Raw outputs for images, in batches: N×K."""
    step = target.batch_size
    return torch.cat([target.raw_outputs(images[i : i + step]) for i in range(0, len(images), step)])


def with_preprocessing(
    target: Target, preprocessing: Preprocessing, *, query_counter: QueryCounter | None = None
) -> Target:
    """The same target with another preprocessing, and another query counter if one is given."""
    return Target(
        target.backend,
        head=target.head,
        preprocessing=preprocessing,
        access=target.access,
        query_counter=query_counter or target.query_counter,
        precision=target.precision,
    )


def verify_optimisations(target: Target, backend: ModuleBackend, images: torch.Tensor, findings: Findings) -> None:
    """Compare a network that was made fast with the network as it came, on real images, as they are and normalised."""
    inputs = target.preprocessing(images[:_VERIFIED].to(backend.device))
    same = backend.verify(torch.cat([inputs, (inputs - _MIDDLE) / _SPREAD]))
    if not same:
        findings.notes.append("the network is run as it came: made faster, it did not give the same outputs.")


def examine_answers(
    target: Target, images: torch.Tensor, findings: Findings, *, paid: bool = False, allow_random: bool = False
) -> Target:
    """Whether a target answers the same for the same image. One that does not is averaged over repeats if allowed.

    Returns:
        The target, or one whose answers are averages.

    Raises:
        TargetError: If it does not answer at all.
    """
    try:
        constancy = check_answers(target, images, paid=paid)
    except (TargetError, QueryBudgetExceeded) as error:
        if not paid:
            raise
        findings.notes.append(f"whether the endpoint answers the same twice could not be seen: {error.message}")
        return target
    check = constancy.check()
    findings.add(check)
    if check.agrees or not allow_random:
        return target
    repeats = PAID_REPEATS if paid else REPEATS
    findings.notes.append(f"{WARNING}: its answers are averages over {repeats} repeats (--allow-random).")
    return Target(
        AveragedBackend(target.backend, repeats),
        head=target.head,
        preprocessing=target.preprocessing,
        access=target.access,
        query_counter=target.query_counter,
        precision=target.precision,
    )


def examine_accuracy(
    findings: Findings,
    predicted: NDArray[np.int64],
    indices: NDArray[np.int64],
    dataset: ImageDataset,
    *,
    model_names: Sequence[str] = (),
    stated: float | None = None,
) -> None:
    """What the accuracy on a sample says of a target.

    Args:
        findings: Added to.
        predicted: Classes predicted for the sample, N.
        indices: Records of the sample, N; those of the test part count, where there are some.
        dataset: Labelled images.
        model_names: Of the model's classes, where its source states them.
        stated: Test accuracy that is stated, in [0, 1]; None if none is.
    """
    test = dataset.parts.get("test")
    if test is not None and len(inside := np.flatnonzero(np.isin(indices, test))):
        predicted, indices = predicted[inside], indices[inside]
    for check in check_accuracy(
        predicted, dataset.labels[indices], dataset.class_names, model_names=model_names, stated=stated
    ):
        findings.add(check)
