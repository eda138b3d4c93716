"""What label-only attacks share: a sample of the records, and an oracle that gives labels and counts questions.

These attacks see predicted classes and nothing else: neither posteriors nor logits (Choquette-Choo et al., "Label-only
membership inference attacks", 2021).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.attacks.base import Attack
from securitynet.attacks.membership.base import MembershipScores, known_records, tuned_threshold
from securitynet.datasets.ordering import shuffled, union
from securitynet.methods.base import Output
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, Queries, ThreatModel

Oracle = Callable[[torch.Tensor], torch.Tensor]
"""Images in [0, 1], N×C×H×W, in; predicted classes, N int64, out."""

NUMBERS_AT_ONCE = 1 << 24
"""Numbers in the images that are made up at once: 64 MiB of them."""


class LabelOnlyAttack(Attack):
    """An attack that asks for the predicted classes of images it makes from each record.

    Attributes:
        records: It is expensive, so it is run on a random sample of each of four groups, members and non-members that
            the adversary knows (to tune the threshold) and does not know (to be judged): this many of each at most.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = MembershipScores

    records: int = Field(default=250, ge=1, description="Most records of each of the four groups.")

    @abstractmethod
    def scores(
        self, oracle: Oracle, signals: Signals, helpers: Signals, data: TrialData, context: Context
    ) -> NDArray[np.float64]:
        """One score per record of ``signals``, higher meaning "more likely a member".

        Args:
            oracle: The target.
            signals: Of the sample. Only their labels and predictions may be looked at.
            helpers: Likewise, of the records that `helping` names.
            data: For the images.
            context: For seed and progress.
        """

    def helping(self, data: TrialData, seed: int) -> NDArray[np.int64]:
        """Records besides the sample whose predicted classes the attack needs, sorted; none by default."""
        return np.empty(0, np.int64)

    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        """See `Attack.run`."""
        sample, helping = self._sample(data, context.seed), self.helping(data, context.seed)
        asked = context.signals(target, data, union(sample, helping))
        signals = asked.select(sample)
        before = target.query_counter.snapshot()

        def oracle(images: torch.Tensor) -> torch.Tensor:
            return torch.cat([target.labels(batch) for batch in torch.split(images, target.batch_size)])

        scores = self.scores(oracle, signals, asked.select(helping), data, context)
        after = target.query_counter.snapshot()
        context.extra_queries.append(Queries(total=after.total - before.total, unique=after.unique - before.unique))
        known = known_records(signals.indices, data)
        threshold = tuned_threshold(scores, np.isin(signals.indices, data.splits.members), known)
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
            group[shuffled(len(group), f"label-only {name}", seed)[: self.records]]
            for name, group in groups.items()
            if len(group)
        ]
        return np.unique(np.concatenate(chosen))


def as_floats(data: TrialData, indices: NDArray[np.int64]) -> torch.Tensor:
    """Images in [0, 1], N×C×H×W float32."""
    return data.dataset.batch(indices).float() / 255
