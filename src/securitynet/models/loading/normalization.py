"""``--normalize auto``: try the usual conventions on labelled images and keep the one that fits the labels.

Wrong preprocessing is the commonest complaint in every model zoo: a network fed with another normalisation still
answers, only worse. The right one is told by accuracy, and by the likelihood of the labels after one temperature was
fitted: without that, an overfitted network would do best on flat inputs, which make it less sure. What the images
cannot tell apart is reported as such, and a fixed order decides, so that the choice does not hang on their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, ttest_1samp
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.errors import TargetError
from securitynet.models.loading.plausibility import chance_of, least_accuracy
from securitynet.models.sources.preprocessing import BGR, CONVENTIONS, Normalization
from securitynet.models.targets.target import Target

SAMPLE = 1000
"""Most images that are tried."""

ORDER = (
    "imagenet", "half", "none", "cifar10", "cifar10-per-image", "cifar100", "svhn", "mnist", "fmnist", "inception",
    "clip", "bytes", "caffe",
)  # fmt: skip
"""Which convention is taken where images cannot tell: the commoner before the rarer. Each in RGB before all in BGR."""

# After so many images, conventions that are worse beyond doubt are dropped: most of the work is spared.
_STAGES = (64, 160, 400)
_HOPELESS = 1e-3
_LEVEL = 0.01
_SEED = 0
_SHOWN = 4
_COLOUR = 3


@dataclass(frozen=True, eq=False)
class Candidate:
    """How well a convention fits.

    Attributes:
        name: Of the convention, as ``--normalize`` takes it.
        normalization: What it states.
        predicted: Classes for the images that were tried: all, or the first few for a convention that fell behind.
        labels: Of those images.
        losses: Negative log-likelihood of each label after fitting one temperature; empty if it failed.
    """

    name: str
    normalization: Normalization
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]
    losses: NDArray[np.float64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Per image, whether it is classified as labelled."""
        return np.asarray(self.predicted == self.labels)

    @property
    def count(self) -> int:
        """Images it was tried on."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Share of them classified as labelled, in [0, 1]."""
        return float(self.correct.mean()) if self.count else 0.0

    @property
    def loss(self) -> float:
        """Mean of ``losses``; infinite if it failed."""
        return float(self.losses.mean()) if len(self.losses) else math.inf


@dataclass(frozen=True, eq=False)
class Choice:
    """The outcome of trying.

    Attributes:
        name: The convention that is taken.
        normalization: What it states.
        table: All conventions: the one taken, then those tried on all images by falling accuracy, then the others.
        equals: Names of those that the images cannot tell from it.
        indices: Records that were tried, N.
        note: One or two sentences for people.
    """

    name: str
    normalization: Normalization
    table: tuple[Candidate, ...]
    equals: tuple[str, ...]
    indices: NDArray[np.int64]
    note: str


def sample_indices(dataset: ImageDataset, size: int = SAMPLE) -> NDArray[np.int64]:
    """A fixed sample of records in random order, from the test part where there is one; the same at each call."""
    test = dataset.parts.get("test")
    pool = test if test is not None and len(test) else np.arange(len(dataset), dtype=np.int64)
    return np.random.default_rng(_SEED).permutation(pool)[:size]


def mixed_indices(dataset: ImageDataset, size: int = SAMPLE) -> NDArray[np.int64]:
    """A fixed sample of as many records of the training as of the test part, in turn; of all where there are no parts.

    Members show which inputs a network knows, non-members that it is not fooled by their sharpness.
    """
    parts = [dataset.parts.get(name) for name in ("test", "train")]
    pools = [part for part in parts if part is not None and len(part)] or [np.arange(len(dataset), dtype=np.int64)]
    generator = np.random.default_rng(_SEED)
    shuffled = [generator.permutation(pool) for pool in pools]
    # Smaller parts are used up; what is missing comes from the other.
    places = np.concatenate([np.arange(len(pool)) * len(pools) + at for at, pool in enumerate(shuffled)])
    return np.concatenate(shuffled)[np.argsort(places, kind="stable")][:size]


def fitting_conventions(channels: int, *, bgr: bool = True) -> dict[str, Normalization]:
    """The conventions that can be applied to images of so many channels, in their fixed order, no two of them the same.

    Args:
        channels: Of the images.
        bgr: Whether to offer those with reversed channels as well, for colour images.
    """
    found: dict[str, Normalization] = {}
    seen: set[object] = set()
    for name in (*ORDER, *(other for other in CONVENTIONS if other not in ORDER)):
        mean, std = CONVENTIONS[name]
        if len(mean) not in (0, 1, channels):
            continue
        spread = (mean * channels, std * channels) if len(mean) == 1 else (mean, std)
        if spread not in seen:
            seen.add(spread)
            found[name] = Normalization(mean, std)
    if bgr and channels == _COLOUR:
        found |= {f"{name}{BGR}": Normalization(*entry.constants, "bgr") for name, entry in found.items()}
    return found


def choose_normalization(target: Target, dataset: ImageDataset, *, size: int = SAMPLE, bgr: bool = True) -> Choice:
    """Try all conventions on a sample of members and non-members, and take one that fits the labels.

    Of the conventions whose accuracy an exact McNemar test cannot tell from the highest, and whose losses a paired test
    cannot tell from the lowest (both at 1%), the first in the fixed order is taken. One that is clearly worse on the
    first images is not tried on the rest.

    Args:
        target: Its preprocessing's size and interpolation are kept, and its query counter is charged.
        dataset: Labelled images.
        size: Most images to try.
        bgr: Whether to try reversed channels as well.

    Raises:
        TargetError: If the images do not suit the model, or its outputs are finite under no convention.
    """
    indices = mixed_indices(dataset, size)
    labels = dataset.labels[indices]
    conventions = fitting_conventions(dataset.image_shape[0], bgr=bgr and not _is_grey(dataset, indices))
    trials = [_Trial(target, name, normalization) for name, normalization in conventions.items()]
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
    whole = [score for score in scored if score.count == len(indices) and math.isfinite(score.loss)]
    top = max(whole, key=lambda score: score.accuracy)
    accurate = [score for score in whole if p_value(top, score) > _LEVEL]
    likeliest = min(accurate, key=lambda score: score.loss)
    equals = [score for score in accurate if not _is_worse(score, likeliest)]
    best = equals[0]
    others = sorted((score for score in scored if score is not best), key=lambda s: (-s.count, -s.accuracy, s.loss))
    return Choice(
        name=best.name,
        normalization=best.normalization,
        table=(best, *others),
        equals=tuple(score.name for score in equals[1:]),
        indices=indices,
        note=_note(best, equals[1:], others, dataset.num_classes),
    )


class _Trial:
    """One convention, tried on more and more images."""

    def __init__(self, target: Target, name: str, normalization: Normalization) -> None:
        self.name = name
        self.normalization = normalization
        self.error: TargetError | None = None
        self._target = Target(
            target.backend,
            head=target.head,
            preprocessing=target.preprocessing.normalized_by(normalization),
            query_counter=target.query_counter,
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

    def score(self, labels: NDArray[np.int64]) -> Candidate:
        """How well it did so far."""
        empty = np.zeros(0, dtype=np.int64)
        if self.error is not None or not self._rows:
            return Candidate(self.name, self.normalization, empty, empty, np.zeros(0))
        logits = torch.cat(self._rows)
        known = labels[: len(logits)]
        losses = tempered_losses(logits, torch.from_numpy(known))
        return Candidate(self.name, self.normalization, logits.argmax(dim=1).numpy(), known, losses)


def tempered_losses(logits: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Negative log-likelihood of each label at the temperature that makes their mean lowest.

    Args:
        logits: N×K, up to a constant per row.
        labels: N.
    """
    logits = logits.double()
    logits = (logits - logits.amax(dim=1, keepdim=True)).clamp_min(-1e6)

    def losses(log_temperature: float) -> torch.Tensor:
        return functional.cross_entropy(logits / math.exp(log_temperature), labels, reduction="none")

    scale = math.log(float(logits.std()) + 1e-12) if logits.numel() > 1 else 0.0
    found = minimize_scalar(lambda value: float(losses(value).mean()), bounds=(scale - 6, scale + 6), method="bounded")
    return losses(float(found.x)).numpy()


def p_value(first: Candidate, second: Candidate) -> float:
    """Two-sided exact McNemar test of two accuracies, on the images that both were tried on."""
    count = min(first.count, second.count)
    only_first = int((first.correct[:count] & ~second.correct[:count]).sum())
    only_second = int((second.correct[:count] & ~first.correct[:count]).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def _is_worse(score: Candidate, likeliest: Candidate) -> bool:
    """Whether the losses of one are higher than those of another, by a paired test."""
    gaps = score.losses - likeliest.losses
    if len(gaps) < 2 or not float(np.abs(gaps).max()) > 0:
        return False
    if float(gaps.std()) < 1e-12:
        return bool(gaps.mean() > 0)
    return bool(ttest_1samp(gaps, 0.0, alternative="greater").pvalue < _LEVEL)


def _is_grey(dataset: ImageDataset, indices: NDArray[np.int64]) -> bool:
    """Whether the channels of colour images are all the same."""
    images = dataset.batch(indices[:64])
    return images.shape[1] == _COLOUR and bool((images[:, 0] == images[:, 2]).all())


def _note(best: Candidate, equals: list[Candidate], others: list[Candidate], num_classes: int) -> str:
    tried = f"{best.accuracy:.1%} on {best.count:,} images"
    if best.accuracy <= least_accuracy(chance := chance_of(best.labels, num_classes)):
        return (
            f"WARNING: auto normalisation: no usual convention fits: the best, {best.name}, is hardly better than "
            f"chance ({tried}; chance is {chance:.1%})."
        )
    if equals:
        names = [score.name for score in equals[:_SHOWN]] + (["others"] if len(equals) > _SHOWN else [])
        accuracies = [score.accuracy for score in equals]
        return (
            f"auto normalisation: {best.name} is taken ({tried}). The images cannot tell it from {', '.join(names)} "
            f"({min(accuracies):.1%} to {max(accuracies):.1%}), and a fixed order decides."
        )
    if not others or not others[0].count:
        return f"auto normalisation: found {best.name}, which fits best ({tried}; no other works at all)."
    rest = f" on the first {others[0].count:,}" if others[0].count < best.count else ""
    return (
        f"auto normalisation: found {best.name}, which fits best ({tried}; next {others[0].name} "
        f"{others[0].accuracy:.1%}{rest}); no other fits the labels as well."
    )
