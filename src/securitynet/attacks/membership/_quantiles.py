"""Quantile regression of a score on arrays: how unusual a score is for a similar record that is not a member.

Bertran et al., "Scalable membership inference attacks via quantile regression" (2023), section 3. Instead of many
shadow models, one regression on non-members predicts the distribution of a record's score from its features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.errors import SplitError

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Levels of the regressed quantiles. Between and beyond them, a normal shape is assumed."""

FEWEST = 20
"""Smallest number of non-members for a regression."""

_SMALLEST_SPREAD = 1e-6


class QuantileRegressor:
    """Estimates conditional quantiles with gradient-boosted trees and the pinball loss, one ensemble per level.

    Args:
        features: Features of non-members, N×F.
        values: Their scores, N.
        levels: Levels of the quantiles, increasing, in (0, 1).
        trees: Largest number of boosting rounds.
        seed: Seed of early stopping, which holds out a tenth if there are at least 500 records.

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
        from sklearn.ensemble import HistGradientBoostingRegressor  # listing attacks imports this module

        self.levels = tuple(levels)
        # Scaled to a common range, so that outlying scores do not lose precision in the values of the leaves.
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
        """Predict the quantiles of each record, N×levels, increasing along the levels.

        Separately fitted regressions can cross; sorting fixes that and never increases the error (Chernozhukov,
        Fernández-Val and Galichon, 2010).
        """
        rows = np.stack([model.predict(features) for model in self._models], axis=1)
        return np.sort(rows, axis=1) * self._scale + self._centre

    def normal_scores(self, features: NDArray[np.floating], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the position of each value in the predicted distribution of non-members, as a normal deviate, N.

        For example, 1.28 is the 90% quantile. The scale is linear between the regressed quantiles; beyond them it
        continues with the slope between the outermost quantile and the middle one.
        """
        return convert_to_normal(self.quantiles(features), values, self.levels)


def convert_to_normal(
    quantiles: NDArray[np.float64], values: NDArray[np.float64], levels: Sequence[float]
) -> NDArray[np.float64]:
    """Convert values to standard normal deviates by their own quantiles; see `QuantileRegressor.normal_scores`.

    Args:
        quantiles: Quantiles of each record, N×levels, not decreasing along the levels.
        values: Values, N.
        levels: Levels of the quantiles, increasing, in (0, 1); at least three.
    """
    deviates = scipy.stats.norm.ppf(levels)
    rows = np.arange(len(values))
    # Equal quantiles would give a step of zero width, on which the deviate of a value is ambiguous.
    spread = np.maximum(quantiles[:, -1] - quantiles[:, 0], _SMALLEST_SPREAD)
    apart = quantiles + spread[:, None] * 1e-6 * np.arange(len(levels))
    right = (values[:, None] > apart).sum(axis=1).clip(1, len(levels) - 1)
    left = right - 1
    # Outside, the slope over the wider span to the middle level is less noisy than that of the last gap.
    middle = len(levels) // 2
    below, above = values < apart[:, 0], values > apart[:, -1]
    left, right = np.where(above, middle, left), np.where(above, len(levels) - 1, right)
    left, right = np.where(below, 0, left), np.where(below, middle, right)
    slopes = (deviates[right] - deviates[left]) / (apart[rows, right] - apart[rows, left])
    anchor = np.where(above, right, left)
    return np.asarray(deviates[anchor] + slopes * (values - apart[rows, anchor]), dtype=np.float64)


def extract_features(
    images: NDArray[np.floating] | None,
    labels: NDArray[np.int64],
    learned_from: NDArray[np.bool_],
    classes: int,
    *,
    components: int = 32,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the features of the regression: the class of a record and a few principal components of its image.

    The target's outputs and embeddings are left out on purpose: the score is a function of them, and a regression that
    sees them would learn that function instead of the distribution of non-members.

    Args:
        images: Flattened images, N×P; None if there are none (recorded outputs), which leaves the class alone.
        labels: Classes, N.
        learned_from: Whether each record is used to compute the components, N.
        classes: Number of classes.
        components: Largest number of principal components.
        seed: Seed of the randomised decomposition.

    Returns:
        Features, N×(classes + components).
    """
    one_hot = np.eye(classes)[labels]
    if images is None:
        return one_hot
    from sklearn.decomposition import PCA

    count = min(components, images.shape[1], int(learned_from.sum()) - 1)
    projection = PCA(count, whiten=True, random_state=seed % (1 << 31)).fit(images[learned_from])
    return np.concatenate([one_hot, projection.transform(images)], axis=1)
