"""Exposed records, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.metrics.exposure import rank_most_exposed


def exposure(members, non_members, count=12):
    scores = np.array([*members, *non_members], dtype=np.float64)
    is_member = np.arange(len(scores)) < len(members)
    return rank_most_exposed(np.arange(len(scores), dtype=np.int64) + 100, scores, is_member, count)


def test_highest_members_first_with_the_non_members_above_them():
    found = exposure([0.2, 0.9, 0.5], [0.5, 0.95, 0.1, 0.3], count=2)
    assert [(r.index, r.score, r.rank, r.false_positives) for r in found.records] == [
        (101, 0.9, 1, 1),  # 0.95 is above
        (102, 0.5, 2, 2),  # 0.95, and 0.5, which ties
    ]
    assert [r.share for r in found.records] == [0.25, 0.5]
    assert (found.tied_with_last, found.top_block, found.ranks) == (0, 1, True)


def test_ties_come_in_the_order_of_their_indices_and_share_a_rank():
    found = exposure([1.0, 3.0, 2.0, 2.0, 2.0], [0.0], count=3)
    assert [(r.index, r.rank) for r in found.records] == [(101, 1), (102, 2), (103, 2)]
    assert found.tied_with_last == 1
    assert found.ranks


def test_an_attack_that_only_says_yes_or_no_ranks_nothing():
    found = exposure([1.0] * 10 + [0.0] * 5, [1.0] * 3 + [0.0], count=4)
    assert not found.ranks
    assert found.top_block == 10
    assert found.tied_with_last == 6
    assert {r.rank for r in found.records} == {1}
    assert {r.false_positives for r in found.records} == {3}


def test_all_members_of_a_tie_shown_is_a_ranking():
    assert exposure([1.0, 1.0], [0.0], count=5).ranks


def test_infinite_scores_are_ranked():
    found = exposure([np.inf, 1.0, -np.inf], [np.inf, 0.0], count=3)
    assert [(r.index, r.false_positives) for r in found.records] == [(100, 1), (101, 1), (102, 2)]


@pytest.mark.parametrize(("members", "non_members"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_what_can_not_be_ranked_is_refused(members, non_members):
    with pytest.raises(ValueError, match=r"needed|NaN"):
        exposure(members, non_members)
