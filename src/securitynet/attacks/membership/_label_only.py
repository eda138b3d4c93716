"""The base of label-only attacks: a sample of the records, and an oracle that returns labels and counts queries.

These attacks see predicted classes only, neither posteriors nor logits (Choquette-Choo et al., "Label-only membership
inference attacks", 2021).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.attacks.membership.base import find_known_records, tune_threshold
from securitynet.datasets.ordering import shuffle, unite
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.methods.output import Output
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

LabelOracle = Callable[[torch.Tensor], torch.Tensor]
"""Maps images in [0, 1], N×C×H×W, to predicted classes, N int64."""

NUMBERS_AT_ONCE = 1 << 24
"""Number of values in the images generated at once: 64 MiB."""


class LabelOnlyAttack(Attack):
    """An attack that queries the predicted classes of images derived from each record.

    Attributes:
        records: Largest sample size. Because the attack is expensive, it runs on a random sample of at most this many
            records from each of four groups: members and non-members that the adversary knows (to tune the threshold)
            and does not know (for the evaluation).
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = MembershipScores

    records: int = Field(default=250, ge=1, description="Largest number of records of each of the four groups.")

    @abstractmethod
    def scores(
        self, oracle: LabelOracle, signals: Signals, helpers: Signals, data: TrialData, context: Context
    ) -> NDArray[np.float64]:
        """Return one score per record; a higher score means "more likely a member".

        Args:
            oracle: Queries the target.
            signals: Outputs for the sample; only labels and predictions may be used.
            helpers: The same for the records that `helping` returns.
            data: Data of the trial, for the images.
            context: Seed and progress.
        """

    def helping(self, data: TrialData, seed: int) -> NDArray[np.int64]:
        """Return records besides the sample whose predicted classes the attack needs, sorted; none by default."""
        return np.empty(0, np.int64)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        sample, helping = self._sample(data, context.seed), self.helping(data, context.seed)
        queried = context.signals(target, data, unite(sample, helping))
        signals = queried.select(sample)
        records = data.dataset.batches(queried.indices, target.batch_size)
        oracle = Oracle(target, known=(images for _, images in records))
        scores = self.scores(oracle.labels, signals, queried.select(helping), data, context)
        context.extra_queries.append(oracle.queries)
        known = find_known_records(signals.indices, data)
        threshold = tune_threshold(scores, np.isin(signals.indices, data.splits.members), known)
        return MembershipScores.of(signals, data, scores, threshold, ~known)

    def _sample(self, data: TrialData, seed: int) -> NDArray[np.int64]:
        splits = data.splits
        groups = {
            "known members": splits.known_members,
            "known non-members": splits.known_non_members,
            "members": splits.scored_members,
            "non-members": splits.scored_non_members,
        }
        chosen = [
            group[shuffle(len(group), f"label-only {name}", seed)[: self.records]]
            for name, group in groups.items()
            if len(group)
        ]
        return np.unique(np.concatenate(chosen))


def as_floats(data: TrialData, indices: NDArray[np.int64]) -> torch.Tensor:
    """Return images in [0, 1], N×C×H×W float32."""
    return data.dataset.batch(indices).float() / 255
