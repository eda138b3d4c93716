"""``--normalize auto``: try the common conventions on labelled images and choose the one that fits the labels.

Wrong preprocessing is the most common complaint about model zoos: a network with the wrong normalisation still returns
outputs, only worse ones. The right one shows in the accuracy, and in the likelihood of the labels after fitting one
temperature: without the temperature, an overfitted network would fit flat inputs best, which make it less confident.
Conventions that the images cannot distinguish are reported as such, and a fixed order decides among them, so that the
choice does not depend on the number of images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.errors import TargetError
from securitynet.models.loading.plausibility import compute_chance, find_least_accuracy
from securitynet.models.sources.preprocessing import BGR, CONVENTIONS, Normalization
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target

SAMPLE = 1000
"""Most images that are tried."""

ORDER = (
    "imagenet", "half", "none", "cifar10", "cifar10-per-image", "cifar100", "svhn", "mnist", "fmnist", "inception",
    "clip", "bytes", "caffe",
)  # fmt: skip
"""Which convention is taken where images cannot tell: the commoner before the rarer. Each in RGB before all in BGR."""

# After this many images, clearly worse conventions are dropped, which saves most of the work.
_STAGES = (64, 160, 400)
_HOPELESS = 1e-3
_LEVEL = 0.01
_ROUNDING = 1e-4
"""Mean difference of losses, in nats, that arithmetic alone may make. Where all images share it, a test finds it
significant."""
_SCOUTS = ("imagenet", "none", "bytes", "caffe")
"""Conventions that lie near all the others: if none of them shows that the network knows the classes, none will."""
_USELESS = 0.1
"""Accuracy that a network with the right inputs is expected to exceed; it matters for datasets of many classes only."""
_SEED = 0
_SHOWN = 4
_COLOUR = 3


@dataclass(frozen=True, eq=False)
class ConventionFit:
    """How well a convention fits.

    Attributes:
        name: Name of the convention, as ``--normalize`` takes it.
        normalization: Its normalisation.
        predicted: Classes predicted for the images that were tried: all of them, or the first few for a convention that
            was dropped early.
        labels: Labels of these images.
        losses: Negative log-likelihood of each label after fitting one temperature; empty if the trial failed.
    """

    name: str
    normalization: Normalization
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]
    losses: NDArray[np.float64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified as its label."""
        return np.asarray(self.predicted == self.labels)

    @property
    def count(self) -> int:
        """Number of images that were tried."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Share of these images classified as their label, in [0, 1]."""
        return float(self.correct.mean()) if self.count else 0.0

    @property
    def loss(self) -> float:
        """Mean of ``losses``; infinite if the trial failed."""
        return float(self.losses.mean()) if len(self.losses) else math.inf


@dataclass(frozen=True, eq=False)
class NormalizationChoice:
    """The result of trying all conventions.

    Attributes:
        name: Name of the chosen convention.
        normalization: Its normalisation.
        table: All conventions: the chosen one, then those tried on all images by falling accuracy, then the others.
        equals: Names of those that the images cannot distinguish from it.
        indices: Records that were tried, N int64.
        note: One or two sentences for the report.
    """

    name: str
    normalization: Normalization
    table: tuple[ConventionFit, ...]
    equals: tuple[str, ...]
    indices: NDArray[np.int64]
    note: str


def sample_indices(dataset: ImageDataset, size: int = SAMPLE) -> NDArray[np.int64]:
    """A fixed sample of records in random order, from the test part if there is one; the same at each call."""
    test = dataset.parts.get("test")
    pool = test if test is not None and len(test) else np.arange(len(dataset), dtype=np.int64)
    return np.random.default_rng(_SEED).permutation(pool)[:size]


def mix_indices(dataset: ImageDataset, size: int = SAMPLE) -> NDArray[np.int64]:
    """A fixed sample that alternates between records of the training and the test part; of all records without parts.

    Members show which inputs the network knows; non-members show that it is not misled by their sharpness.
    """
    parts = [dataset.parts.get(name) for name in ("test", "train")]
    pools = [part for part in parts if part is not None and len(part)] or [np.arange(len(dataset), dtype=np.int64)]
    generator = np.random.default_rng(_SEED)
    shuffled = [generator.permutation(pool) for pool in pools]
    # A small part is used in full; the other part supplies the rest.
    places = np.concatenate([np.arange(len(pool)) * len(pools) + at for at, pool in enumerate(shuffled)])
    return np.concatenate(shuffled)[np.argsort(places, kind="stable")][:size]


def list_conventions(channels: int, *, bgr: bool = True) -> dict[str, Normalization]:
    """The distinct conventions that apply to images with this number of channels, in their fixed order.

    Args:
        channels: Number of channels.
        bgr: Whether to include conventions with reversed channels, for colour images.
    """
    conventions: dict[str, Normalization] = {}
    seen: set[object] = set()
    for name in (*ORDER, *(other for other in CONVENTIONS if other not in ORDER)):
        mean, std = CONVENTIONS[name]
        if len(mean) not in (0, 1, channels):
            continue
        spread = (mean * channels, std * channels) if len(mean) == 1 else (mean, std)
        if spread not in seen:
            seen.add(spread)
            conventions[name] = Normalization(mean, std)
    if bgr and channels == _COLOUR:
        conventions |= {f"{name}{BGR}": Normalization(*entry.constants, "bgr") for name, entry in conventions.items()}
    return conventions


def choose_normalization(
    target: Target, dataset: ImageDataset, *, size: int = SAMPLE, bgr: bool = True, cache: Path | None = None
) -> NormalizationChoice:
    """Try all conventions on a sample of members and non-members, and choose one that fits the labels.

    A candidate is a convention whose accuracy an exact McNemar test does not distinguish from the highest, and whose
    losses a paired test does not distinguish from the lowest (both at 1%). The first candidate in the fixed order is
    chosen. A convention that is clearly worse on the first images is not tried on the rest. A network that shows under
    four very different conventions that it does not know the classes, such as one with random weights, is not tried
    under the others: of a thousand classes, that would take longer than the assessment.

    Args:
        target: The target; its input size and interpolation are used, and its query counter is charged.
        dataset: A dataset with labelled images.
        size: Largest number of images to try.
        bgr: Whether to try reversed channels as well.
        cache: Folder for signals of all targets: what was tried is not queried again, now or later. None queries anew.

    Raises:
        TargetError: If the images do not suit the model, or its outputs are finite under no convention.
    """
    indices = mix_indices(dataset, size)
    labels = dataset.labels[indices]
    conventions = list_conventions(dataset.image_shape[0], bgr=bgr and not _is_grey(dataset, indices))
    trials = [
        _Trial(target, name, normalization, dataset, indices, cache) for name, normalization in conventions.items()
    ]
    ends = (*(stage for stage in _STAGES if stage < len(indices)), len(indices))
    chance = compute_chance(labels, dataset.num_classes)
    scouts = [trial for trial in trials if trial.name in _SCOUTS]
    if _are_useless(scouts, ends[0], chance) and _are_useless(scouts[:1], ends[-1], chance):
        best, *others = (trial.score() for trial in scouts)
        note = _note(best, [], others, dataset.num_classes)
        return NormalizationChoice(best.name, best.normalization, (best, *others), (), indices, note)
    running = trials
    for end in ends:
        for trial in running:
            trial.reach(end)
        running = [trial for trial in running if trial.error is None]
        if not running:
            raise TargetError(
                f"{target.reference} fails under every normalisation that was tried. {trials[0].error}",
                hint="Check the weights and --input-size.",
            )
        scores = {trial.name: trial.score(losses=False) for trial in running}
        top = max(scores.values(), key=lambda score: score.accuracy)
        running = [trial for trial in running if compare_accuracies(top, scores[trial.name]) > _HOPELESS]
    scored = [trial.score() for trial in trials]
    whole = [score for score in scored if score.count == len(indices) and math.isfinite(score.loss)]
    top = max(whole, key=lambda score: score.accuracy)
    accurate = [score for score in whole if compare_accuracies(top, score) > _LEVEL]
    likeliest = min(accurate, key=lambda score: score.loss)
    equals = [score for score in accurate if not _is_worse(score, likeliest)]
    best = equals[0]
    others = sorted((score for score in scored if score is not best), key=lambda s: (-s.count, -s.accuracy, s.loss))
    return NormalizationChoice(
        name=best.name,
        normalization=best.normalization,
        table=(best, *others),
        equals=tuple(score.name for score in equals[1:]),
        indices=indices,
        note=_note(best, equals[1:], others, dataset.num_classes),
    )


class _Trial:
    """One convention, tried on a growing number of images."""

    def __init__(
        self,
        target: Target,
        name: str,
        normalization: Normalization,
        dataset: ImageDataset,
        indices: NDArray[np.int64],
        cache: Path | None,
    ) -> None:
        self.name = name
        self.normalization = normalization
        self.error: TargetError | None = None
        self._target = Target(
            target.backend,
            head=target.head,
            preprocessing=target.preprocessing.normalized_by(normalization),
            query_counter=target.query_counter,
        )
        self._dataset, self._indices, self._cache = dataset, indices, cache
        self._rows: list[NDArray[np.float32]] = []
        self.count = 0

    def reach(self, end: int) -> None:
        """Query the target for the images before ``end`` that it was not queried for yet."""
        if self.count >= end or self.error is not None:
            return
        records = self._indices[self.count : end]
        try:
            # The classes were compared before; here they may also be those of an endpoint that is still unknown.
            signals = collect_signals(self._target, self._dataset, records, cache=self._cache, same_classes=False)
        # One normalisation may overflow where another does not.
        except TargetError as error:
            self.error = error
            return
        self._rows.append(signals.logits)
        self.count = end

    def score(self, *, losses: bool = True) -> ConventionFit:
        """How well the convention fits so far; without ``losses``, they are left out."""
        empty = np.zeros(0, dtype=np.int64)
        if self.error is not None or not self._rows:
            return ConventionFit(self.name, self.normalization, empty, empty, np.zeros(0))
        logits = torch.from_numpy(np.concatenate(self._rows))
        known = self._dataset.labels[self._indices[: self.count]]
        values = temper_losses(logits, torch.from_numpy(known)) if losses else np.zeros(0)
        return ConventionFit(self.name, self.normalization, logits.argmax(dim=1).numpy(), known, values)


def _are_useless(trials: list[_Trial], count: int, chance: float) -> bool:
    """Whether so many images show that the network knows the classes under none of some conventions.

    It must not be better than chance, and so inaccurate that no more images would change that.
    """
    for trial in trials:
        trial.reach(count)
        score = trial.score(losses=False)
        if not score.count:
            return False  # it fails, which the whole search reports
        right = int(score.correct.sum())
        p_value = scipy.stats.binomtest(right, score.count, chance, alternative="greater").pvalue
        highest = scipy.stats.binomtest(right, score.count).proportion_ci(1 - 2 * _LEVEL).high
        if p_value < _LEVEL / len(_SCOUTS) or highest >= _USELESS:
            return False
    return bool(trials)


def temper_losses(logits: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Compute the negative log-likelihood of each label at the temperature that minimises their mean.

    Args:
        logits: N×K, up to a constant per row.
        labels: N int64.
    """
    logits = logits.double()
    logits = (logits - logits.amax(dim=1, keepdim=True)).clamp_min(-1e6)

    def losses(log_temperature: float) -> torch.Tensor:
        return functional.cross_entropy(logits / math.exp(log_temperature), labels, reduction="none")

    scale = math.log(float(logits.std()) + 1e-12) if logits.numel() > 1 else 0.0
    fit = scipy.optimize.minimize_scalar(
        lambda value: float(losses(value).mean()), bounds=(scale - 6, scale + 6), method="bounded"
    )
    return losses(float(fit.x)).numpy()


def compare_accuracies(first: ConventionFit, second: ConventionFit) -> float:
    """Two-sided exact McNemar test of two accuracies, on the images tried with both."""
    count = min(first.count, second.count)
    only_first = int((first.correct[:count] & ~second.correct[:count]).sum())
    only_second = int((second.correct[:count] & ~first.correct[:count]).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second).pvalue)


def _is_worse(score: ConventionFit, likeliest: ConventionFit) -> bool:
    """Whether the losses of one convention are higher than those of another, by a paired test."""
    gaps = score.losses - likeliest.losses
    if len(gaps) < 2 or float(gaps.mean()) <= _ROUNDING:
        return False
    if float(gaps.std()) < 1e-12:
        return True
    return bool(scipy.stats.ttest_1samp(gaps, 0.0, alternative="greater").pvalue < _LEVEL)


def _is_grey(dataset: ImageDataset, indices: NDArray[np.int64]) -> bool:
    """Whether all channels of colour images are equal."""
    images = dataset.batch(indices[:64])
    return images.shape[1] == _COLOUR and bool((images[:, 0] == images[:, 2]).all())


def _note(best: ConventionFit, equals: list[ConventionFit], others: list[ConventionFit], num_classes: int) -> str:
    tried = f"{best.accuracy:.1%} on {best.count:,} images"
    if best.accuracy <= find_least_accuracy(chance := compute_chance(best.labels, num_classes)):
        return (
            f"WARNING: auto normalisation: no usual convention fits: the best, {best.name}, is hardly better than "
            f"chance ({tried}; chance is {chance:.1%})."
        )
    if equals:
        names = [score.name for score in equals[:_SHOWN]] + (["others"] if len(equals) > _SHOWN else [])
        accuracies = [score.accuracy for score in equals]
        return (
            f"auto normalisation: {best.name} is chosen ({tried}). The images do not distinguish it from "
            f"{', '.join(names)} ({min(accuracies):.1%} to {max(accuracies):.1%}), and a fixed order decides."
        )
    if not others or not others[0].count:
        return f"auto normalisation: chose {best.name}, which fits best ({tried}; no other works at all)."
    rest = f" on the first {others[0].count:,}" if others[0].count < best.count else ""
    return (
        f"auto normalisation: chose {best.name}, which fits best ({tried}; next {others[0].name} "
        f"{others[0].accuracy:.1%}{rest}); no other fits the labels as well."
    )
