"""``--normalize auto``: try the usual conventions on labelled images and keep the one that fits the labels.

Wrong preprocessing is the commonest complaint in every model zoo: a network fed with another normalisation still
answers, only worse. The right one is told by accuracy; conventions that accuracy cannot tell apart, by likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.errors import TargetError
from securitynet.models.sources.preprocessing import CONVENTIONS, Constants
from securitynet.models.targets.target import Target

SAMPLE = 1000
"""Most images that are tried."""

# After so many images, conventions that are worse beyond doubt are dropped: most of the work is spared.
_STAGES = (128, 384)
_HOPELESS = 1e-3
_LEVEL = 0.05
_SEED = 0


@dataclass(frozen=True)
class Candidate:
    """How well a convention fits.

    Attributes:
        name: Key of `CONVENTIONS`.
        constants: (mean, deviation).
        accuracy: Share of the sample classified as labelled, in [0, 1].
        loss: Mean negative log-likelihood of the labels; infinite if an output was not finite.
        correct: Per image of the sample that was tried: all, or the first few for a convention that fell behind.
    """

    name: str
    constants: Constants
    accuracy: float
    loss: float
    correct: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Images it was tried on."""
        return len(self.correct)


@dataclass(frozen=True)
class Choice:
    """The outcome of trying.

    Attributes:
        name: The convention that is kept.
        constants: Its (mean, deviation).
        table: All conventions: the one kept, then those tried on all images by falling accuracy, then the others.
        margin: Accuracy of the one kept less that of the next, on the images both were tried on; None without another.
        note: One or two sentences for people.
    """

    name: str
    constants: Constants
    table: tuple[Candidate, ...]
    margin: float | None
    note: str


def sample_indices(dataset: ImageDataset, size: int = SAMPLE) -> NDArray[np.int64]:
    """A fixed sample of records in random order, from the test part where there is one; the same at each call."""
    test = dataset.parts.get("test")
    pool = test if test is not None and len(test) else np.arange(len(dataset), dtype=np.int64)
    return np.random.default_rng(_SEED).permutation(pool)[:size]


def fitting_conventions(channels: int) -> dict[str, Constants]:
    """The conventions that can be applied to images of so many channels, those that do the same named once."""
    found: dict[str, Constants] = {}
    seen: set[Constants] = set()
    for name, (mean, std) in CONVENTIONS.items():
        if len(mean) not in (0, 1, channels):
            continue
        spread = (mean * channels, std * channels) if len(mean) == 1 else (mean, std)
        if spread not in seen:
            seen.add(spread)
            found[name] = (mean, std)
    return found


def choose_normalization(target: Target, dataset: ImageDataset, *, size: int = SAMPLE) -> Choice:
    """Try all conventions on a sample and keep the one that fits the labels.

    The highest accuracy wins; among those that an exact McNemar test (at 5%) cannot tell from it, the lowest mean
    negative log-likelihood does. A convention that is clearly worse on the first images is not tried on the rest.

    Args:
        target: Its preprocessing's size and interpolation are kept, and its ledger is charged.
        dataset: Labelled images.
        size: Most images to try.

    Raises:
        TargetError: If the images do not suit the model, or its outputs are finite under no convention.
    """
    indices = sample_indices(dataset, size)
    labels = torch.from_numpy(dataset.labels[indices])
    trials = [_Trial(target, name, pair) for name, pair in fitting_conventions(dataset.image_shape[0]).items()]
    running = trials
    start = 0
    for end in (*(stage for stage in _STAGES if stage < len(indices)), len(indices)):
        images = dataset.batch(indices[start:end])
        for trial in running:
            trial.go_on(images)
        start = end
        running = [trial for trial in running if trial.error is None]
        if not running:
            raise TargetError(
                f"{target.reference} fails under every normalisation that was tried. {trials[0].error}",
                hint="Check the weights and --input-size.",
            )
        scores = {trial.name: trial.score(labels) for trial in running}
        top = max(scores.values(), key=lambda score: score.accuracy)
        running = [trial for trial in running if p_value(top, scores[trial.name]) > _HOPELESS]
    scored = [trial.score(labels) for trial in trials]
    last = [score for score in scored if score.count == len(indices) and math.isfinite(score.loss)]
    top = max(last, key=lambda score: score.accuracy)
    best = min((score for score in last if p_value(top, score) > _LEVEL), key=lambda score: score.loss)
    others = sorted((score for score in scored if score is not best), key=lambda s: (-s.count, -s.accuracy, s.loss))
    return Choice(
        name=best.name,
        constants=best.constants,
        table=(best, *others),
        margin=_margin(best, others[0]) if others else None,
        note=_note(best, others, dataset.num_classes, labels),
    )


class _Trial:
    """One convention, tried on more and more images."""

    def __init__(self, target: Target, name: str, constants: Constants) -> None:
        self.name = name
        self.constants = constants
        self.error: TargetError | None = None
        mean, std = constants
        self._target = Target(
            target.backend,
            head=target.head,
            preprocessing=target.preprocessing.model_copy(update={"mean": mean, "std": std}),
            ledger=target.ledger,
        )
        self._rows: list[torch.Tensor] = []

    def go_on(self, images: torch.Tensor) -> None:
        """Query the target for more images."""
        size = self._target.batch_size
        try:
            for start in range(0, len(images), size):
                self._rows.append(self._target.logits(images[start : start + size]))
        # A normalisation may overflow where another does not.
        except TargetError as error:
            self.error = error

    def score(self, labels: torch.Tensor) -> Candidate:
        """How well it did so far."""
        if self.error is not None or not self._rows:
            return Candidate(self.name, self.constants, 0.0, math.inf, np.zeros(0, dtype=bool))
        logits = torch.cat(self._rows)
        known = labels[: len(logits)]
        correct = (logits.argmax(dim=1) == known).numpy()
        loss = float(functional.cross_entropy(logits.double(), known))
        return Candidate(self.name, self.constants, float(correct.mean()), loss, correct)


def p_value(first: Candidate, second: Candidate) -> float:
    """Two-sided exact McNemar test of two accuracies, on the images that both were tried on."""
    count = min(first.count, second.count)
    only_first = int((first.correct[:count] & ~second.correct[:count]).sum())
    only_second = int((second.correct[:count] & ~first.correct[:count]).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def _margin(best: Candidate, other: Candidate) -> float:
    return float(best.correct[: other.count].mean()) - other.accuracy if other.count else best.accuracy


def _note(best: Candidate, others: list[Candidate], num_classes: int, labels: torch.Tensor) -> str:
    words = f"auto normalisation: {best.name} fits best ({best.accuracy:.1%} on {best.count:,} images"
    if others and others[0].count:
        words += f"; next {others[0].name} {others[0].accuracy:.1%}"
        words += f" on the first {others[0].count:,})" if others[0].count < best.count else ")"
        if p_value(best, others[0]) > _LEVEL:
            words += ", which is no significant difference in accuracy; the likelihood of the labels decided"
    else:
        words += "; no other works at all)"
    # Answering the commonest class always is the least a classifier can do.
    chance = min(1.0, max(1 / num_classes, float(torch.bincount(labels).max()) / best.count))
    # Untrained networks do a little better than chance too, so that "significantly better" would say too little.
    if best.accuracy <= min(3 * chance, chance + 0.15):
        words += (
            f". WARNING: this is hardly better than chance ({chance:.1%}): no usual normalisation fits. The model may "
            "belong to another dataset, number its classes otherwise, or need another --input-size"
        )
    return words + "."
