"""Label-only LiRA: the likelihood ratio of which slightly changed copies of a record get its class.

The copies are those of Choquette-Choo et al., "Label-only membership inference attacks" (2021), section 3.4, and the
likelihood ratio is that of Carlini et al. (2022), section 5.1, with a Bernoulli distribution for each copy in place of
the normal distribution of its confidence. An output defense that leaves only the predicted class does not stop it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks._shadows import compute_shadow_outputs
from securitynet.attacks.membership._evidence import SignalEvidence, Views
from securitynet.attacks.membership._reference import ONLINE, ReferenceAttack
from securitynet.attacks.membership._views import MOST_QUERIES, make_views
from securitynet.datasets.base import ImageDataset
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import ShadowOutputs
from securitynet.models.targets.signals import Signals, collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import AugmentName
from securitynet.records import ThreatModel


class LabelOnlyLira(ReferenceAttack):
    """The score is the log-likelihood ratio of which copies of the record get its class, summed over the copies.

    Attributes:
        queries: Views of each record, as for other attacks with shadow models; see `_views.list_views`.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ONLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "online"

    queries: int = Field(
        default=9, ge=1, le=MOST_QUERIES, description="Queries for each record: itself and shifted or mirrored copies."
    )

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(logits.argmax(axis=1) == labels, dtype=np.float64)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        return compute_log_ratio(records.observed, records.shadows, records.included)

    @override
    def score_views(self, records: Views, population: Views) -> NDArray[np.float64]:
        return np.asarray(np.sum([self.score(one, one) for one in records], axis=0), dtype=np.float64)

    def score_leave_one_out(self, agreed: NDArray[np.float64], included: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the score of each record under each of M models, with all others as its shadow models, M×N.

        Args:
            agreed: Whether each view of each record gets its class under each model, M×V×N, 0 or 1.
            included: Whether the model was trained on the record, M×N.
        """
        scores = np.zeros(included.shape)
        for number, observed in enumerate(agreed):
            others = np.arange(len(agreed)) != number
            for view, own in enumerate(observed):
                scores[number] += compute_log_ratio(own, agreed[others, view], included[others])
        return scores

    @override
    def _outputs(
        self,
        target: Target,
        data: TrialData,
        records: NDArray[np.int64],
        views: Sequence[ImageDataset],
        context: Context,
    ) -> ShadowOutputs:
        return compute_shadow_outputs(
            target, data, records, self.shadows, context, reduce=self.signal, views=views[1:], labels_only=True
        )

    @override
    def _observed(
        self, target: Target, data: TrialData, signals: Signals, views: Sequence[ImageDataset], context: Context
    ) -> NDArray[np.float64]:
        observed = [signals.correct.astype(np.float64)]
        for view in views[1:]:
            outputs = context.signals(target, replace(data, dataset=view), np.unique(signals.indices))
            observed.append(outputs.select(signals.indices).correct.astype(np.float64))
        return np.stack(observed)


def compute_log_ratio(
    observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the log-likelihood ratio of "trained on the record" to "not trained on it" for one view, N.

    The probability that a model gives the view its class is estimated for each record from its few shadow models, and
    drawn towards the rate over all records as if that were one more model.

    Args:
        observed: Whether the target gives the view the class of the record, N, 0 or 1.
        shadows: The same for the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
    """
    ratio = np.zeros(len(observed))
    for group, sign in ((included, 1.0), (~included, -1.0)):
        hits, counts = np.where(group, shadows, 0.0).sum(axis=0), group.sum(axis=0)
        overall = (hits.sum() + 0.5) / (counts.sum() + 1)
        rate = (hits + overall) / (counts + 1)
        ratio += sign * np.where(observed > 0.5, np.log(rate), np.log1p(-rate))
    return ratio


def query_agreement(
    target: Target,
    dataset: ImageDataset,
    augment: AugmentName,
    count: int,
    records: NDArray[np.int64],
    labels: NDArray[np.int64],
    cache: Path | None = None,
) -> NDArray[np.float64]:
    """Query a target with views of records and return which of them get a class, V×N, 0 or 1.

    Args:
        target: The target; predicted classes suffice.
        dataset: Its dataset, with images.
        augment: Augmentation of the training recipe, which the views follow.
        count: Number of views of each record.
        records: Records, N.
        labels: The class that is asked about for each record, N.
        cache: Folder for signals; None stores nothing.
    """
    views = make_views(dataset, augment, count)
    predicted = [collect_signals(target, view, records, cache=cache).predictions for view in views]
    return np.asarray(np.stack(predicted) == labels, dtype=np.float64)
