"""The precedence test against all orders, and its level."""

import itertools

import numpy as np
import pytest

from securitynet.metrics.precedence import compute_precedence_p_value, count_beyond


def test_the_p_value_is_the_share_of_all_orders():
    """4 scores and 3 clean values: in how many of the 35 orders are the 2 largest both scores?"""
    orders = list(itertools.combinations(range(7), 4))  # ranks of the scores
    for beyond in range(5):
        share = np.mean([set(range(7 - beyond, 7)) <= set(order) for order in orders])
        assert compute_precedence_p_value(beyond, 4, 3) == pytest.approx(share)


def test_ties_with_the_largest_clean_value_are_not_beyond_it():
    assert count_beyond(np.array([1.0, 2.0, 3.0, 3.5]), np.array([0.0, 3.0])) == 1


def test_the_level_holds_where_both_are_of_one_kind():
    random = np.random.default_rng(0)
    p_values = []
    for _ in range(2000):
        values = random.standard_normal(60)
        p_values.append(compute_precedence_p_value(count_beyond(values[:40], values[40:]), 40, 20))
    assert 0.02 < np.mean(np.array(p_values) < 0.05) <= 0.06
