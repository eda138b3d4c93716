"""Quantile regression of a score, on arrays: how unusual a value is for a record like this one that is not a member.

Bertran et al., "Scalable membership inference attacks via quantile regression" (2023), section 3. Instead of many
shadow models, one regression, learned from non-members, says what scores to expect of a record by its features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

from securitynet.errors import SplitError

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Levels of the regressed quantiles. Between and beyond them a normal distribution's shape is taken."""

FEWEST = 20
"""Non-members that a regression can be learned from."""

_SMALLEST_SPREAD = 1e-6


class QuantileRegressor:
    """Conditional quantiles by gradient-boosted trees with the pinball loss, one ensemble per level.

    Args:
        features: Of records that are no members, N×F.
        values: Their scores, N.
        levels: Increasing, in (0, 1).
        trees: Boosting rounds at most.
        seed: Of early stopping, which holds out a tenth where there are 500 records or more.

    Raises:
        SplitError: If there are fewer than `FEWEST` records.
    """

    def __init__(
        self,
        features: NDArray[np.floating],
        values: NDArray[np.float64],
        *,
        levels: Sequence[float] = LEVELS,
        trees: int = 100,
        seed: int = 0,
    ) -> None:
        if len(values) < FEWEST:
            raise SplitError(
                f"Quantile regression needs at least {FEWEST} non-members to learn from; there are {len(values)}.",
                hint="Let the adversary know more records with --known, or assess more records.",
            )
        self.levels = tuple(levels)
        # Trees put a value into every leaf; scores far out would be rounded against each other without a common scale.
        self._centre, self._scale = float(np.median(values)), max(float(np.std(values)), _SMALLEST_SPREAD)
        scaled = (values - self._centre) / self._scale
        self._models = [
            HistGradientBoostingRegressor(
                loss="quantile",
                quantile=level,
                max_iter=trees,
                min_samples_leaf=max(5, min(20, len(values) // 10)),
                max_leaf_nodes=15,
                early_stopping=len(values) >= 500,
                random_state=seed % (1 << 31),
            ).fit(features, scaled)
            for level in self.levels
        ]

    def quantiles(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """The quantiles of each record, N×levels, increasing along the levels.

        Regressions that were learned apart can cross; sorting mends that, and brings them no farther from the truth
        (Chernozhukov, Fernández-Val and Galichon, 2010).
        """
        rows = np.stack([model.predict(features) for model in self._models], axis=1)
        return np.sort(rows, axis=1) * self._scale + self._centre

    def normal_scores(self, features: NDArray[np.floating], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """How high each value is among those to be expected of a non-member with such features, N.

        On the scale of standard normal deviates: 1.28 is the 90% quantile. Linear between the regressed quantiles, and
        beyond them with the slope between the outer ones and the middle.
        """
        return normal_scores(self.quantiles(features), values, self.levels)


def normal_scores(
    quantiles: NDArray[np.float64], values: NDArray[np.float64], levels: Sequence[float]
) -> NDArray[np.float64]:
    """Values on the scale of standard normal deviates, by quantiles of their own; see `QuantileRegressor`.

    Args:
        quantiles: N×levels, not decreasing along the levels.
        values: N.
        levels: Increasing, in (0, 1); three or more.
    """
    deviates = stats.norm.ppf(levels)
    rows = np.arange(len(values))
    # Equal quantiles would make a step of no width, and the deviate of a value on it ambiguous.
    spread = np.maximum(quantiles[:, -1] - quantiles[:, 0], _SMALLEST_SPREAD)
    apart = quantiles + spread[:, None] * 1e-6 * np.arange(len(levels))
    right = (values[:, None] > apart).sum(axis=1).clip(1, len(levels) - 1)
    left = right - 1
    # Outside, the wider span to the middle level is less noisy than the last gap.
    middle = len(levels) // 2
    below, above = values < apart[:, 0], values > apart[:, -1]
    left, right = np.where(above, middle, left), np.where(above, len(levels) - 1, right)
    left, right = np.where(below, 0, left), np.where(below, middle, right)
    slopes = (deviates[right] - deviates[left]) / (apart[rows, right] - apart[rows, left])
    anchor = np.where(above, right, left)
    return np.asarray(deviates[anchor] + slopes * (values - apart[rows, anchor]), dtype=np.float64)


def describe(
    images: NDArray[np.floating] | None,
    labels: NDArray[np.int64],
    learned_from: NDArray[np.bool_],
    classes: int,
    *,
    components: int = 32,
    seed: int = 0,
) -> NDArray[np.float64]:
    """What a regression may know of a record: its class, and its image in a few principal components.

    The target's outputs and embeddings are left out on purpose: the score is a function of them, and a regression that
    sees them learns that function instead of what to expect.

    Args:
        images: N×P flattened; None if there are none (recorded outputs): then the class alone.
        labels: N.
        learned_from: Records that the components are computed from, N.
        classes: Classes in all.
        components: Principal components at most.
        seed: Of the randomised decomposition.

    Returns:
        N×(classes + components).
    """
    one_hot = np.eye(classes)[labels]
    if images is None:
        return one_hot
    count = min(components, images.shape[1], int(learned_from.sum()) - 1)
    projection = PCA(count, whiten=True, random_state=seed % (1 << 31)).fit(images[learned_from])
    return np.concatenate([one_hot, projection.transform(images)], axis=1)
