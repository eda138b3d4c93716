"""The evaluation of surrogates by the auditor, whose queries do not count as the adversary's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.signals import Signals, collect_signals
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access


def view_as_auditor(target: Target) -> Target:
    """Return the target with a query counter of its own: the evaluation costs the adversary no queries."""
    plain = target.without_interface()
    return Target(
        plain.backend,
        head=plain.head,
        preprocessing=plain.preprocessing,
        access=Access.BLACK_BOX,
        query_counter=QueryCounter(target.query_counter.cap),
        precision=plain.precision,
    )


def compare_with_target(
    surrogate: Target,
    dataset: ImageDataset,
    records: NDArray[np.int64],
    posteriors: NDArray[np.float32] | None,
    cache: Path | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return a surrogate's predictions, their posteriors, and the distances of its posteriors from the target's.

    Args:
        surrogate: The surrogate.
        dataset: Dataset that contains the records.
        records: Records to evaluate on, N.
        posteriors: Posteriors of the target, N×K; None if they are hidden.
        cache: Folder for signals; None stores none.

    Returns:
        Predictions, N int64; their posteriors, N float32; total-variation distances in [0, 1], N float32, NaN if the
        target's posteriors are hidden.
    """
    signals = collect_signals(surrogate, dataset, records, cache=cache)
    own = signals.posteriors
    confidence = own.max(axis=1)
    if posteriors is None:
        return signals.predictions, confidence, np.full(len(records), np.nan, dtype=np.float32)
    distances = np.abs(own.astype(np.float64) - posteriors).sum(axis=1) / 2
    return signals.predictions, confidence, distances.clip(0, 1).astype(np.float32)


def try_transfer(
    target: Target,
    truth: Signals,
    surrogates: Sequence[Target],
    dataset: ImageDataset,
    most: int,
    epsilon: float,
    seed: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Test whether adversarial examples made on B surrogates, and noise, fool the target on M records.

    The examples are those of FGSM (Goodfellow et al., 2015): one step of size ``epsilon`` along the sign of the
    gradient of the cross-entropy of the true class, or of its log-odds, whose gradient does not vanish where the
    surrogate is confident. The noise moves each pixel up or down by ``epsilon`` at random. All images are rounded to
    8 bits, as in an image file.

    Args:
        target: The auditor's view of the target; black-box access suffices.
        truth: Outputs of the target for records with known labels.
        surrogates: The surrogates, B.
        dataset: Dataset that contains the records.
        most: Largest number of correctly classified records to use; 0 for none.
        epsilon: Size of the perturbation, in [0, 1].
        seed: Seed of the choice of records and of the noise.

    Returns:
        Whether the target misclassifies each example, B×M, and each noisy image, M.
    """
    right = np.flatnonzero(truth.correct)
    chosen = np.sort(right[shuffle(len(right), "transfer", seed)[:most]])
    labels = torch.from_numpy(truth.labels[chosen])
    fooled: list[list[torch.Tensor]] = [[] for _ in surrogates]
    noisy: list[torch.Tensor] = []
    draws = make_generator(seed, "transfer noise")
    gradients = [InputGradients(surrogate, loss=log_odds) for surrogate in surrogates] if len(chosen) else []
    for start in range(0, len(chosen), _BATCH):
        images = dataset.batch(truth.indices[chosen[start : start + _BATCH]]).float() / 255
        wanted = labels[start : start + _BATCH]
        signs = torch.randint(0, 2, images.shape, generator=draws).float() * 2 - 1
        noisy.append(target.labels(_moved(images, signs, epsilon)) != wanted)
        for take, outcomes in zip(gradients, fooled, strict=True):
            signs = take(images, wanted).gradients.sign()
            outcomes.append(target.labels(_moved(images, signs, epsilon)) != wanted)
    if not len(chosen):
        return np.empty((len(surrogates), 0), dtype=bool), np.empty(0, dtype=bool)
    return np.stack([torch.cat(outcomes).numpy() for outcomes in fooled]), torch.cat(noisy).numpy()


_BATCH = 256


def _moved(images: torch.Tensor, signs: torch.Tensor, epsilon: float) -> torch.Tensor:
    return ((images + epsilon * signs).clamp(0, 1) * 255).round().to(torch.uint8)
