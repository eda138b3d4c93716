"""Quantile regression: a record is called a member if its confidence is unusual for a similar non-member.

Bertran et al., "Scalable membership inference attacks via quantile regression" (2023). It needs no shadow model: a
regression on the non-members that the adversary knows predicts quantiles of the scaled confidence from class and image.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.membership import _quantiles
from securitynet.attacks.membership._confidence import scale_confidence
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.attacks.membership.base import find_known_records, tune_threshold
from securitynet.datasets.ordering import shuffle
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

SIDE = 16
"""Largest side, in pixels, of the images that the regression sees."""


class QuantileRegression(Attack):
    """The score is the scaled confidence as a normal deviate, by the predicted quantiles of the record.

    The regression learns from the known non-members, so these are not evaluated. To tune the threshold, they are scored
    by regressions on the other folds.

    Attributes:
        components: Number of principal components of the images that the regression sees.
        trees: Largest number of boosting rounds.
        folds: Number of folds of the known non-members, to score them for the threshold.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = MembershipScores
    costs: ClassVar[str | None] = "fits many regressions to images"

    components: int = Field(default=32, ge=1, description="Principal components of the images.")
    trees: int = Field(default=100, ge=1, description="Boosting rounds at most.")
    folds: int = Field(default=3, ge=2, description="Folds of the known non-members, to tune the threshold.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        signals = context.signals(target, data)
        values = scale_confidence(signals.logits, signals.labels)
        is_member = np.isin(signals.indices, data.splits.members)
        known = find_known_records(signals.indices, data)
        teachers = known & ~is_member
        features = self._features(signals, data, teachers, context.seed)
        scores = self._regression(features[teachers], values[teachers], context).normal_scores(features, values)
        scores[teachers] = self._by_folds(features[teachers], values[teachers], context)
        threshold = tune_threshold(scores, is_member, known)
        judged = signals.select(signals.indices[~known])
        return MembershipScores.of(judged, data, scores[~known], threshold)

    def _features(
        self, signals: Signals, data: TrialData, teachers: NDArray[np.bool_], seed: int
    ) -> NDArray[np.float64]:
        images = None
        if data.dataset.images is not None:
            small = [_thumbnails(batch) for _, batch in data.dataset.batches(signals.indices, 1024)]
            images = np.concatenate(small)
        classes = signals.outputs.shape[1]
        return _quantiles.extract_features(
            images, signals.labels, teachers, classes, components=self.components, seed=seed
        )

    def _regression(
        self, features: NDArray[np.float64], values: NDArray[np.float64], context: Context
    ) -> _quantiles.QuantileRegressor:
        return _quantiles.QuantileRegressor(features, values, trees=self.trees, seed=context.seed)

    def _by_folds(
        self, features: NDArray[np.float64], values: NDArray[np.float64], context: Context
    ) -> NDArray[np.float64]:
        """Return scores of the known non-members, each from a regression that did not learn from the record."""
        scores = np.empty(len(values))
        for fold in np.array_split(shuffle(len(values), "folds", context.seed), self.folds):
            rest = np.ones(len(values), dtype=bool)
            rest[fold] = False
            regression = self._regression(features[rest], values[rest], context)
            scores[fold] = regression.normal_scores(features[fold], values[fold])
        return scores


def _thumbnails(images: torch.Tensor) -> NDArray[np.float32]:
    """Return images in [0, 1] reduced to at most `SIDE` pixels a side and flattened, for the principal components."""
    height, width = images.shape[2:]
    small = functional.adaptive_avg_pool2d(images.float() / 255, (min(height, SIDE), min(width, SIDE)))
    return np.asarray(small.flatten(1).numpy(), dtype=np.float32)
