"""Label-only LiRA: LiRA on how many slightly changed copies of a record get its class, in place of the posterior.

The copies are those of Choquette-Choo et al., "Label-only membership inference attacks" (2021), section 3.4, and the
likelihood ratio is that of Carlini et al. (2022), section 5.1. An output defense that leaves only the predicted class
does not stop it.
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

from securitynet.attacks._shadows import shadow_outputs
from securitynet.attacks.membership import _lira
from securitynet.attacks.membership._evidence import Evidence, Views
from securitynet.attacks.membership._reference import ONLINE, ReferenceAttack
from securitynet.attacks.membership._views import MOST_QUERIES, make_views
from securitynet.datasets.base import ImageDataset
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import ShadowOutputs
from securitynet.models.targets.signals import Signals, collect
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import AugmentName
from securitynet.records import ThreatModel


class LabelOnlyLira(ReferenceAttack):
    """The score is the log-likelihood ratio of the log-odds with which copies of the record get its class.

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
    def score(self, records: Evidence, population: Evidence) -> NDArray[np.float64]:
        return _lira.online(records.observed, records.shadows, records.included)

    @override
    def score_views(self, records: Views, population: Views) -> NDArray[np.float64]:
        joined = [Evidence(compute_log_odds([view.observed for view in views]),
                           compute_log_odds([view.shadows for view in views]), views[0].included)
                  for views in (records, population)]  # fmt: skip
        return self.score(joined[0], joined[1])

    @override
    def _outputs(
        self,
        target: Target,
        data: TrialData,
        records: NDArray[np.int64],
        views: Sequence[ImageDataset],
        context: Context,
    ) -> ShadowOutputs:
        return shadow_outputs(
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


def compute_log_odds(agreed: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the empirical logit log((k + 1/2) / (V - k + 1/2)) of k of V views that get the class of the record.

    Args:
        agreed: For each view, 1 where the record gets its class and 0 elsewhere; V arrays of one shape.
    """
    right = np.sum(agreed, axis=0)
    return np.asarray(np.log((right + 0.5) / (len(agreed) - right + 0.5)), dtype=np.float64)


def measure_log_odds(
    target: Target,
    dataset: ImageDataset,
    augment: AugmentName,
    count: int,
    records: NDArray[np.int64],
    labels: NDArray[np.int64],
    cache: Path | None = None,
) -> NDArray[np.float64]:
    """Query a target with views of records and return the log-odds with which they get a class; N.

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
    return compute_log_odds(
        [(collect(target, view, records, cache=cache).predictions == labels).astype(np.float64) for view in views]
    )
