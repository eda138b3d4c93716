"""Exposure of groups: by hand, against Fisher's test, and groups that do not differ."""

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics.groups import compare_exposed_groups


def test_a_group_that_is_identified_more_often_comes_first_with_its_p_value():
    is_member = np.tile([True, False], 100)
    values = np.repeat([0, 1], 100)
    scores = np.zeros(200)
    scores[:30:2] = 1.0  # 15 of the first group's 50 members
    scores[100:104:2] = 1.0  # 2 of the second group's
    first, second = compare_exposed_groups(scores, is_member, 0.5, {"age": (values, ("young", "old"))})
    assert (first.by, first.name, first.members, first.non_members) == ("age", "young", 50, 50)
    assert (first.identified.value, first.accused.value, first.others) == (0.3, 0.0, 0.04)
    raw = stats.fisher_exact([[15, 35], [2, 48]]).pvalue
    assert first.p_value == second.p_value == pytest.approx(2 * raw)
    assert first.differs(0.95)
    limits = stats.binomtest(15, 50).proportion_ci(0.975)  # Bonferroni: two groups
    assert (first.identified.low, first.identified.high) == pytest.approx((limits.low, limits.high))
    assert first.auc.value == pytest.approx(0.5 + 0.3 / 2)


def test_small_groups_missing_values_and_single_groups_are_left_out():
    is_member = np.tile([True, False], 30)
    values = np.repeat([0, 1, 2, -1], [20, 20, 4, 16])
    columns = {"a": (values, ("x", "y", "rare")), "alone": (np.zeros(60, dtype=np.int64), ("only",))}
    found = compare_exposed_groups(np.arange(60.0), is_member, 30.0, columns)
    assert {(group.by, group.name) for group in found} == {("a", "x"), ("a", "y")}
    assert compare_exposed_groups(np.arange(60.0), is_member, 30.0, {"alone": columns["alone"]}) == []


def test_groups_that_do_not_differ_are_rarely_said_to():
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(60):
        columns = {
            "class": (random.integers(0, 10, 1000), tuple("abcdefghij")),
            "sex": (random.integers(0, 2, 1000), ("f", "m")),
        }
        found = compare_exposed_groups(random.normal(size=1000), np.arange(1000) % 2 == 0, 1.5, columns)
        assert len(found) == 12
        alarms += any(group.differs(0.95) for group in found)
    assert alarms <= 6  # 3 expected at most
