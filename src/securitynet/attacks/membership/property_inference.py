"""Property inference: which share of the training set has a property, such as one class or one value of an attribute?

Ganju et al., "Property inference attacks on fully connected neural networks using permutation invariant
representations" (CCS 2018), train shadow models on data with two shares of the property, and a classifier that tells
them apart. It sees outputs only here, as in Zhang, Tople and Ohrimenko, "Leakage of dataset properties in multi-party
machine learning" (USENIX Security 2021), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import log_softmax
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.membership._reference import OFFLINE
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics import rates
from securitynet.models.shadows import ShadowTraining, resolve_training
from securitynet.models.shadows.store import check_shadow, specify_shadow
from securitynet.models.store.cached_model import ModelSpec
from securitynet.models.store.parallel import obtain_models
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed
from securitynet.records import Direction, Measurement, ThreatModel

QUERY_SHARE = 0.25
"""Share of the shadow data that all models are queried with, and none is trained on."""

EXCHANGES = 512
"""Exchanges of the shares within pairs at most, which show what chance reaches; all of them for up to 10 pairs."""

_NUMBERS_AT_ONCE = 1 << 23

METHOD = "Student's t over shadow models of both shares"
ACCURACY_METHOD = f"{rates.CLOPPER_PEARSON}; 0.5 is excluded only if exchanges of the shares within pairs do so"


@dataclass(frozen=True, eq=False)
class PropertyScores(Output):
    """Scores of shadow models trained with a low and with a high share of the property, and of the target.

    Attributes:
        low: Scores of the models with the low share, each by a classifier that was fitted without it, M.
        high: The same with the high share, M; ``low[m]`` and ``high[m]`` were left out together.
        target: Scores of the target by the same classifiers, M.
        shares: Both shares, 2.
        truth: The share among the members of the target.
        permuted: What `compare_pairs` returns after the shares were exchanged within some pairs; empty in files of
            earlier versions.
    """

    headline: ClassVar[tuple[str, ...]] = ("pair-accuracy",)

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    target: NDArray[np.float64]
    shares: NDArray[np.float64]
    truth: float
    permuted: NDArray[np.float64]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"low": self.low, "high": self.high, "target": self.target, "shares": self.shares,
                "truth": np.asarray(self.truth), "permuted": self.permuted}  # fmt: skip

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PropertyScores:
        return cls(
            arrays["low"],
            arrays["high"],
            arrays["target"],
            arrays["shares"],
            float(arrays["truth"]),
            arrays.get("permuted", np.empty(0)),
        )

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Measure how well models of the two shares are distinguished, and estimate the share of the target.

        Where outputs show nothing of the property, both models of a pair are exchangeable, so each pair is ordered
        rightly with a probability of one half. The pairs are not independent, as the classifiers share the pairs that
        they are fitted on: the number of pairs that are ordered rightly varies more than a binomial one.
        """
        del fprs, seed
        pairs = len(self.low)
        accuracy = self._measure_accuracy(level)
        means = float(self.low.mean()), float(self.high.mean())
        note = f"{self.truth:.1%} of the members of the target have the property."
        about: dict[str, Any] = {"level": level, "n": 2 * pairs, "direction": Direction.LOWER}
        if accuracy.low is None or accuracy.low <= 0.5 or means[1] <= means[0]:
            reason = f"not resolvable: the shadow models of the two shares cannot be distinguished. {note}"
            return [accuracy, Measurement(name="share", value=None, method="none", note=reason, **about)]
        unit = (self.shares[1] - self.shares[0]) / (means[1] - means[0])
        value = float(self.shares[0] + unit * (self.target.mean() - means[0]))
        spread = math.sqrt((self.low.var(ddof=1) + self.high.var(ddof=1)) / 2)
        reach = float(scipy.stats.t.ppf((1 + level) / 2, 2 * pairs - 2) * unit * spread * math.sqrt(1 + 1 / pairs))
        return [
            accuracy,
            Measurement(
                name="share", value=value, low=value - reach, high=value + reach, method=METHOD, note=note, **about
            ),
        ]

    def _measure_accuracy(self, level: float) -> Measurement:
        """Measure the share of pairs that are ordered rightly; 0.5 is excluded only if few exchanges lie as far out."""
        pairs = len(self.low)
        exact = rates.rate(
            "pair-accuracy", int((self.high > self.low).sum()), pairs, direction=Direction.LOWER, level=level
        )
        assert exact.value is not None and exact.low is not None and exact.high is not None
        gap = float(compare_pairs(self.low, self.high))
        above, below = (
            (1 + int(reached.sum())) / (1 + len(self.permuted))
            for reached in (self.permuted >= gap - 1e-9, self.permuted <= gap + 1e-9)
        )
        tail = (1 - level) / 2
        low = min(exact.low, 0.5) if above > tail else exact.low
        high = max(exact.high, 0.5) if below > tail else exact.high
        return exact.model_copy(update={"low": low, "high": high, "method": ACCURACY_METHOD})


class PropertyInference(Attack):
    """A linear classifier of mean outputs, for records with the property and for records without it.

    Attributes:
        attribute: Name of the attribute of which ``value`` is the property; None for the class.
        value: Number of the class, or of the attribute's value.
        low: The low share; None for half of that in the shadow data.
        high: The high share; None for twice that in the shadow data.
        pairs: Number of pairs of shadow models, one with each share.
        training: How they are trained.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (OFFLINE,)
    output: ClassVar[type[Output]] = PropertyScores
    costs: ClassVar[str | None] = "trains many shadow models"
    trains_like_target: ClassVar[bool] = True

    attribute: str | None = Field(default=None, description="Attribute of the property. Default: the class.")
    value: int = Field(default=0, ge=0, description="Number of the class, or of the attribute's value.")
    low: float | None = Field(default=None, gt=0, lt=1, description="Low share. Default: half of the usual one.")
    high: float | None = Field(default=None, gt=0, lt=1, description="High share. Default: twice the usual one.")
    pairs: int = Field(default=10, ge=6, description="Pairs of shadow models.")
    training: ShadowTraining = Field(default_factory=ShadowTraining, description="How shadow models are trained.")

    @model_validator(mode="after")
    def _shares_differ(self) -> PropertyInference:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ConfigurationError("The low share must be below the high one.")
        return self

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> PropertyScores:
        pool = np.union1d(data.splits.shadow_train, data.splits.shadow_test)
        if not len(pool):
            raise SplitError(
                f"The {data.splits.name} split has no shadow data to train on.", hint="Use --split four-way."
            )
        has = self._find(data.dataset)
        order = pool[shuffle(len(pool), "property queries", context.seed)]
        cut = round(len(order) * QUERY_SHARE)
        queries, rest = np.sort(order[:cut]), np.sort(order[cut:])
        usual = float(has[rest].mean())
        shares = self.low or usual / 2, self.high or min(2 * usual, (1 + usual) / 2)
        specs = self._plan(target, data, rest, has, shares, context.seed)
        models = obtain_models(
            specs, kind="shadows", cache=context.cache, device=context.device, progress=context.progress
        )

        def describe(outputs: NDArray[np.floating]) -> NDArray[np.float64]:
            values = np.maximum(log_softmax(outputs.astype(np.float64), axis=1), math.log(1e-6))
            inside = has[queries]
            return np.concatenate([values[inside].mean(axis=0), values[~inside].mean(axis=0)])

        features = np.stack([describe(collect_signals(one.target, data.dataset, queries, cache=context.cache).logits)
                             for one in models])  # fmt: skip
        own = describe(context.signals(target, data, queries).logits)
        low, high, seen, permuted = score_pairs(features[: self.pairs], features[self.pairs :], own, context.seed)
        truth = float(has[data.splits.members].mean())
        return PropertyScores(low, high, seen, np.asarray(shares), truth, permuted)

    def _find(self, dataset: ImageDataset) -> NDArray[np.bool_]:
        """Whether each record of the dataset has the property."""
        if self.attribute is None:
            return np.asarray(dataset.labels == self.value)
        if self.attribute not in dataset.attributes:
            raise ConfigurationError(
                f"{dataset.reference} has no attribute {self.attribute!r}.",
                hint=f"It has: {', '.join(dataset.attributes) or 'none'}.",
            )
        return np.asarray(dataset.attributes[self.attribute].values == self.value)

    def _plan(
        self,
        target: Target,
        data: TrialData,
        records: NDArray[np.int64],
        has: NDArray[np.bool_],
        shares: tuple[float, float],
        seed: int,
    ) -> list[ModelSpec]:
        """Specifications of the models with the low share, then of those with the high one, of equal sizes."""
        inside, outside = records[has[records]], records[~has[records]]
        size = min(len(data.splits.members), *(int(len(inside) / share) for share in shares),
                   *(int(len(outside) / (1 - share)) for share in shares))  # fmt: skip
        if not len(inside) or not len(outside) or round(size * shares[0]) < 1 or size < 2:
            raise ConfigurationError(
                f"{len(inside)} of {len(records)} records of the shadow data have the property, too few or too many "
                f"for training sets with shares of {shares[0]:.1%} and {shares[1]:.1%}."
            )
        training = resolve_training(self.training, target, data.trained, data.defense)
        specs = []
        for name, share in zip(("low", "high"), shares, strict=True):
            number = round(size * share)
            for pair in range(self.pairs):
                key = f"property {name} {pair}"
                chosen = [
                    inside[shuffle(len(inside), f"{key} in", seed)[:number]],
                    outside[shuffle(len(outside), f"{key} out", seed)[: size - number]],
                ]
                recipe = training.recipe.model_copy(update={"seed": derive_seed(seed, f"property {name}", pair)})
                spec = specify_shadow(
                    data.dataset,
                    np.sort(np.concatenate(chosen)),
                    training.architecture,
                    recipe,
                    training.defense,
                    input_size=training.input_size,
                )
                check_shadow(spec)
                specs.append(spec)
        return specs


def score_pairs(
    low: NDArray[np.float64], high: NDArray[np.float64], target: NDArray[np.float64], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Score each pair of models by a classifier that was fitted on all other pairs, and the target by each of these.

    One model alone must not be left out: the classes would then differ in size, which pushes its score the wrong way.

    Args:
        low: Features of the models with the low share, M×F.
        high: Features of the models with the high share, M×F.
        target: Features of the target, F.
        seed: Determines the exchanges where there are more.

    Returns:
        Scores of both kinds of models and of the target, M each; higher means "more of the property". Last, what
        `compare_pairs` returns for each exchange of the shares within pairs.
    """
    count = len(low)
    exchanged = _list_exchanges(count, seed)[:, :, None]  # first, nothing is exchanged
    scores = np.empty((3, len(exchanged), count))
    step = max(1, _NUMBERS_AT_ONCE // low.size)
    for start in range(0, len(exchanged), step):
        part = exchanged[start : start + step]
        one, other = np.where(part, high, low), np.where(part, low, high)
        for pair in range(count):
            directions, middles = fit_classifiers(np.delete(one, pair, axis=1), np.delete(other, pair, axis=1))
            for row, features in zip(scores, (one[:, pair], other[:, pair], target), strict=True):
                row[start : start + step, pair] = ((features - middles) * directions).sum(axis=1)
    gaps = compare_pairs(scores[0], scores[1])
    return scores[0, 0], scores[1, 0], scores[2, 0], gaps[1:]


def compare_pairs(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute how clearly the scores of pairs differ, in [-1, 1]: their mean difference over its root mean square.

    Args:
        low: Scores of the models with the low share, ...×M.
        high: Those of the models with the high share, ...×M.
    """
    difference = high - low
    scale = np.sqrt((difference**2).mean(axis=-1))
    return np.asarray(difference.mean(axis=-1) / np.where(scale > 0, scale, 1.0))


def _list_exchanges(pairs: int, seed: int) -> NDArray[np.bool_]:
    """Whether the shares of each pair are exchanged, E×M; first, those of none.

    Exchanging all others instead names the two shares the other way round, so the last pair is never exchanged.
    """
    if 2 ** (pairs - 1) <= EXCHANGES:
        return np.asarray(np.arange(2 ** (pairs - 1))[:, None] >> np.arange(pairs) & 1, dtype=bool)
    exchanged = np.random.default_rng([seed, 6]).random((EXCHANGES, pairs)) < 0.5
    exchanged[0] = False
    return exchanged


def fit_classifiers(
    low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit linear discriminant analyses, each of two classes of equal size with a shrunken correlation matrix.

    The shrinkage is that of Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
    (2004), section 3.

    Args:
        low: Features of the first class, B×M×F.
        high: Features of the second one, B×M×F.

    Returns:
        A direction, along which the second class has higher values, and a point in the middle, both B×F.
    """
    means = low.mean(axis=1), high.mean(axis=1)
    centred = np.concatenate([low - means[0][:, None], high - means[1][:, None]], axis=1)
    count, features = centred.shape[1:]
    deviation = np.sqrt((centred**2).mean(axis=1))
    scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0)  # features that never vary do not count
    centred *= scale[:, None]
    gap = (means[1] - means[0]) * scale
    # With many more features than models, everything follows from the products of models.
    products = centred @ centred.transpose(0, 2, 1)
    squared = np.einsum("bii->bi", products)
    variance = squared.sum(axis=1) / (count * features)
    variance = np.where(variance > 0, variance, 1.0)
    squares = (products**2).sum(axis=(1, 2)) / count**2
    distance = squares - features * variance**2
    error = ((squared**2).sum(axis=1) / count - squares) / count
    shrinkage = np.clip(error / np.maximum(distance, 1e-12), 1e-6, 1 - 1e-6)
    # Woodbury's identity for the inverse of (1 - s)·XᵀX/n + s·v·I.
    ridge = count * shrinkage * variance / (1 - shrinkage)
    inner = products + ridge[:, None, None] * np.eye(count)
    solved = np.linalg.solve(inner, centred @ gap[:, :, None])
    direction = (gap - (centred.transpose(0, 2, 1) @ solved)[:, :, 0]) / (shrinkage * variance)[:, None]
    return direction * scale, (means[0] + means[1]) / 2
