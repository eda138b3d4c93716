"""The difference of two AUCs of the same records: by hand, against SciPy's ranks, and by coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import paired_auc, roc


def test_by_hand():
    is_member = np.array([True, True, False, False])
    first = np.array([3.0, 1.0, 2.0, 0.0])  # the pairs (3, 2), (3, 0), (1, 0) are right, (1, 2) is wrong: 3/4
    second = np.array([3.0, 2.0, 2.0, 0.0])  # (2, 2) is a tie: 3.5/4
    found = paired_auc.measure_auc_difference("auc", first, second, is_member)
    assert found.value == pytest.approx(0.125)
    assert found.low < 0 < found.high and found.n == 4


def test_the_value_is_the_difference_of_the_two_aucs():
    random = np.random.default_rng(0)
    is_member = random.random(200) < 0.4
    first, second = random.normal(is_member, 1), np.round(random.normal(2 * is_member, 1))
    found = paired_auc.measure_auc_difference("auc", first, second, is_member)
    each = [roc.compute_auc(s[is_member], s[~is_member]) for s in (first, second)]
    assert found.value == pytest.approx(each[1] - each[0], abs=1e-12)
    reversed_ = paired_auc.measure_auc_difference("auc", second, first, is_member)
    assert (reversed_.low, reversed_.high) == pytest.approx((-found.high, -found.low))


def test_pairs_are_narrower_than_independent_estimates():
    random = np.random.default_rng(1)
    is_member = np.arange(600) < 300
    first = random.normal(is_member, 1)
    second = first + random.normal(0, 0.05, 600)
    found = paired_auc.measure_auc_difference("auc", first, second, is_member)
    one = roc.measure_auc(first[is_member], first[~is_member])
    assert found.high - found.low < 0.6 * (one.high - one.low)


def test_identical_scores_and_perfect_ones_keep_a_width():
    is_member = np.arange(40) < 20
    scores = np.where(is_member, np.inf, -np.inf)
    for first, second in ((scores, scores), (np.zeros(40), np.zeros(40))):
        found = paired_auc.measure_auc_difference("auc", first, second, is_member)
        assert found.value == 0 and found.low < 0 < found.high
    with pytest.raises(ValueError, match="NaN"):
        paired_auc.measure_auc_difference("auc", np.full(40, np.nan), scores, is_member)


def draw(random, kind, n):
    """Scores of one sample from a population in which both have the same AUC, except for `shift`."""
    is_member = np.arange(2 * n) < n
    shared, own = random.normal(0, 1, 2 * n), random.normal(0, 1, (2, 2 * n))
    effect = {"same": (1.0, 1.0), "shift": (0.3, 1.2), "perfect": (4.5, 4.5), "ties": (1.0, 1.0)}[kind]
    first, second = (0.8 * shared + 0.6 * own[k] + effect[k] * is_member for k in (0, 1))
    if kind == "ties":  # as of an attack with two scores
        first, second = (first > 0.5).astype(float), (second > 0.5).astype(float)
    return first, second, is_member


@pytest.mark.parametrize("kind", ["same", "shift", "perfect", "ties"])
@pytest.mark.parametrize("n", [15, 60])
def test_coverage(kind, n):
    """At a nominal 95%, at least 93% of the intervals hold the truth; that of shifted normals is in closed form."""
    random = np.random.default_rng(n)
    truth = float(stats.norm.cdf(1.2 / 2**0.5) - stats.norm.cdf(0.3 / 2**0.5)) if kind == "shift" else 0.0
    repetitions = 200
    held = sum(
        found.low <= truth <= found.high
        for found in (paired_auc.measure_auc_difference("auc", *draw(random, kind, n)) for _ in range(repetitions))
    )
    assert held / repetitions >= 0.93
