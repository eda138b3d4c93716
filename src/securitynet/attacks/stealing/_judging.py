"""How surrogates are judged: by the auditor, whose questions are not on the thief's bill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffled
from securitynet.models.targets.input_gradients import InputGradients, log_odds
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.signals import Signals, collect
from securitynet.models.targets.target import Target
from securitynet.randomness import generator
from securitynet.records import Access


def auditors_view(target: Target) -> Target:
    """The target itself, with a query counter of its own: judging a surrogate costs the thief no queries."""
    plain = target.without_interface()
    return Target(
        plain.backend,
        head=plain.head,
        preprocessing=plain.preprocessing,
        access=Access.BLACK_BOX,
        query_counter=QueryCounter(target.query_counter.cap),
        precision=plain.precision,
    )


def judge(
    surrogate: Target,
    dataset: ImageDataset,
    records: NDArray[np.int64],
    posteriors: NDArray[np.float32] | None,
    cache: Path | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """A surrogate's predictions on N records, its posteriors of these, and their distances from the target's.

    Args:
        surrogate: The model.
        dataset: Where the records are.
        records: N.
        posteriors: The target's, N×K; None if they are hidden.
        cache: For signals.

    Returns:
        N int64; N float32; N float32 total-variation distances in [0, 1], NaN where the target's posteriors are hidden.
    """
    signals = collect(surrogate, dataset, records, cache=cache)
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
    """Whether adversarial examples made on B surrogates, and noise, make the target err on M records.

    The examples are those of FGSM (Goodfellow et al., 2015): one step of size ``epsilon`` along the sign of the
    gradient of the cross-entropy of the true class (of its log-odds, which do not vanish where the surrogate is sure).
    Noise moves each pixel by ``epsilon`` up or down at random. All are rounded to whole byte values, as an image file
    would be.

    Args:
        target: Black-box access is enough; the auditor's view.
        truth: Its outputs for records with known labels.
        surrogates: B models.
        dataset: Where the records are.
        most: Take at most so many of the records that the target classifies correctly; 0 for none.
        epsilon: In [0, 1].
        seed: Of the choice of records, and of the noise.

    Returns:
        B×M, and M.
    """
    right = np.flatnonzero(truth.correct)
    chosen = np.sort(right[shuffled(len(right), "transfer", seed)[:most]])
    labels = torch.from_numpy(truth.labels[chosen])
    fooled: list[list[torch.Tensor]] = [[] for _ in surrogates]
    noisy: list[torch.Tensor] = []
    draws = generator(seed, "transfer noise")
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
