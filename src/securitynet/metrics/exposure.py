"""Which records an attack exposes most: the members with the highest scores, and how unusual those scores are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ExposedRecord:
    """A member that the attack is sure of.

    Attributes:
        index: The record in its dataset.
        score: What the attack gave it, higher meaning "more likely a member".
        rank: 1 for the highest score among members; members that tie share the best rank of their block.
        false_positives: Non-members that score at least as high: the price, in false accusations, of naming it.
        non_members: Non-members in all.
    """

    index: int
    score: float
    rank: int
    false_positives: int
    non_members: int

    @property
    def share(self) -> float:
        """Share of non-members that score at least as high, in [0, 1]."""
        return self.false_positives / self.non_members


@dataclass(frozen=True)
class Exposure:
    """The most exposed members.

    Attributes:
        records: Highest score first; records of one score are in the order of their indices.
        tied_with_last: Members that are not in ``records`` although they score as high as the last of them.
        top_block: Members that share the highest score.
    """

    records: tuple[ExposedRecord, ...]
    tied_with_last: int
    top_block: int

    @property
    def ranks(self) -> bool:
        """Whether there is a ranking to show: False if all records shown tie, and others tie with them."""
        return self.tied_with_last == 0 or self.top_block < len(self.records)


def most_exposed(
    indices: NDArray[np.int64], scores: NDArray[np.float64], is_member: NDArray[np.bool_], count: int = 12
) -> Exposure:
    """The ``count`` members with the highest scores.

    Args:
        indices: Records, N.
        scores: N, higher meaning "more likely a member"; none is NaN.
        is_member: N.
        count: How many at most.

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
