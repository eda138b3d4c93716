"""Which records an attack exposes most: the members with the highest scores, and how unusual those scores are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ExposedRecord:
    """A member with a high score.

    Attributes:
        index: The record in its dataset.
        score: Its score; higher means "more likely a member".
        rank: 1 for the highest score among members; tied members share the best rank of their block.
        false_positives: Number of non-members that score at least as high, which would be misclassified with it.
        non_members: Number of all non-members.
    """

    index: int
    score: float
    rank: int
    false_positives: int
    non_members: int

    @property
    def share(self) -> float:
        """The share of non-members that score at least as high, in [0, 1]."""
        return self.false_positives / self.non_members


@dataclass(frozen=True)
class Exposure:
    """The most exposed members.

    Attributes:
        records: The members, highest score first; records with equal scores are in the order of their indices.
        tied_with_last: Number of members that are not in ``records`` although they score as high as the last of them.
        top_block: Number of members that share the highest score.
    """

    records: tuple[ExposedRecord, ...]
    tied_with_last: int
    top_block: int

    @property
    def ranks(self) -> bool:
        """Whether the ranking is informative: false if all records shown tie, and others tie with them."""
        return self.tied_with_last == 0 or self.top_block < len(self.records)


def rank_most_exposed(
    indices: NDArray[np.int64], scores: NDArray[np.float64], is_member: NDArray[np.bool_], count: int = 12
) -> Exposure:
    """Return the ``count`` members with the highest scores.

    Args:
        indices: Records, N.
        scores: Scores, N, without NaN; higher means "more likely a member".
        is_member: True membership, N.
        count: Largest number of members.

    Raises:
        ValueError: If there are no members or no non-members, or a score is NaN.
    """
    if not is_member.any() or is_member.all():
        raise ValueError("scores of both members and non-members are needed")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    members, member_scores = indices[is_member], scores[is_member]
    non_members = np.sort(scores[~is_member])
    order = np.lexsort((members, -member_scores))
    chosen = order[:count]
    descending = -member_scores[order]
    last = member_scores[chosen[-1]]
    false_positives = len(non_members) - np.searchsorted(non_members, member_scores[chosen], side="left")
    ranks = np.searchsorted(descending, -member_scores[chosen], side="left") + 1
    records = tuple(
        ExposedRecord(int(members[at]), float(member_scores[at]), int(rank), int(higher), len(non_members))
        for at, rank, higher in zip(chosen, ranks, false_positives, strict=True)
    )
    at_least_last = int((member_scores >= last).sum())
    top_block = int((member_scores == member_scores[order[0]]).sum())
    return Exposure(records, at_least_last - len(records), top_block)
