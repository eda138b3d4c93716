"""Group membership: were the records of this user, or of another group, in the training set?

Each record contributes a weak piece of evidence, and a group sums them: the user-level attack of Kandpal et al., "User
inference attacks on large language models" (EMNLP 2024), section 4, with the loss of one model for the ratio of two.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.attacks.membership.base import find_known_records, tune_threshold
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel


class GroupMembership(Attack):
    """The score of a group is the mean log-confidence of its records in their classes.

    Groups are the values of an attribute of the dataset, such as a user or a patient; those with members as well as
    non-members are left out. Without an attribute, groups are drawn at random among the known members, the other
    members, and likewise the non-members: what someone who contributed as many records is exposed to. Each group is
    judged once, under the number of its first record.

    Attributes:
        attribute: Name of the attribute that states the groups; None for random groups.
        size: Records in each random group.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = MembershipScores
    costs: ClassVar[str | None] = "judges groups, not single records"

    attribute: str | None = Field(default=None, description="Attribute that states the groups. Default: random groups.")
    size: int = Field(default=4, ge=2, description="Records in each random group.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        signals = context.signals(target, data)
        is_member = np.isin(signals.indices, data.splits.members)
        known = find_known_records(signals.indices, data)
        groups, note = self._groups(data.dataset, signals.indices, is_member, known, context.seed)
        confidence = log_confidence(signals.logits, signals.labels)
        scores = np.array([confidence[group].mean() for group in groups])
        first = np.array([group[0] for group in groups], dtype=np.int64)
        order = np.argsort(first)
        first, scores = first[order], scores[order]
        if is_member[first].all() or not is_member[first].any():
            raise ConfigurationError(
                f"Of the {len(groups)} groups, {'all' if is_member[first].all() else 'none'} are members.",
                hint="Name another attribute, or leave it out for random groups.",
            )
        all_known = np.array([known[groups[at]].all() for at in order])
        threshold = tune_threshold(scores, is_member[first], all_known)
        return MembershipScores.of(signals.select(signals.indices[first]), data, scores, threshold, ~all_known, (note,))

    def _groups(
        self,
        dataset: ImageDataset,
        indices: NDArray[np.int64],
        is_member: NDArray[np.bool_],
        known: NDArray[np.bool_],
        seed: int,
    ) -> tuple[list[NDArray[np.int64]], str]:
        """Sorted positions of the records of each group, and a note for the reader."""
        if self.attribute is None:
            kinds = {
                "known members": known & is_member,
                "members": ~known & is_member,
                "known non-members": known & ~is_member,
                "non-members": ~known & ~is_member,
            }
            groups = []
            for name, chosen in kinds.items():
                positions = np.flatnonzero(chosen)
                order = positions[shuffle(len(positions), f"groups of {name}", seed)]
                whole = order[: len(order) // self.size * self.size].reshape(-1, self.size)
                groups += [np.sort(group) for group in whole]
            return groups, f"Judged on {len(groups):,} random groups of {self.size} records each."
        if self.attribute not in dataset.attributes:
            raise ConfigurationError(
                f"{dataset.reference} has no attribute {self.attribute!r}.",
                hint=f"It has: {', '.join(dataset.attributes) or 'none'}.",
            )
        values = np.asarray(dataset.attributes[self.attribute].values)[indices]
        groups, mixed = [], 0
        for value in np.unique(values[values >= 0]):  # -1: the record is not annotated
            group = np.flatnonzero(values == value)
            if is_member[group].all() or not is_member[group].any():
                groups.append(group)
            else:
                mixed += 1
        note = f"Judged on {len(groups):,} groups by {self.attribute}."
        return groups, note + (f" {mixed:,} with members and non-members were left out." if mixed else "")
