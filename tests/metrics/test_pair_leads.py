"""Leads of pairs of classes: by hand, at their level, and where nothing can be known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics.pair_leads import compute_gumbel_p_value, compute_pair_leads, find_leading_pair

BOXES = np.array([(top, left, 2) for top in (0, 2, 4) for left in (0, 2, 4)])


def draw_margins(random, classes=10):
    places = len(BOXES)
    margins = random.normal(size=(classes, classes, places)) * np.linspace(0.2, 3, places)
    margins += 4 * random.normal(size=(classes, classes, 1)) + 4 * random.normal(size=(classes, 1, places))
    margins += 4 * random.normal(size=(1, classes, places))
    margins[np.arange(classes), np.arange(classes)] = np.nan
    return margins


def test_a_lead_by_hand():
    random = np.random.default_rng(0)
    noise = random.normal(size=(10, 10, 9))
    margins = noise.copy()
    margins[1, 2, 4] = 50
    margins[3, 2, 4], margins[1, 5, 4], margins[1, 2, 0] = 20, 11, 5
    margins[np.arange(10), np.arange(10)] = np.nan
    leads = compute_pair_leads(margins, BOXES)
    alone = margins.copy()
    alone[3, 2, 4], alone[1, 5, 4], alone[1, 2, 0] = noise[3, 2, 4], noise[1, 5, 4], noise[1, 2, 0]
    # 50 beside the next source's 20, the next target's 11 and the next place's 5; without them, noise of about 2.
    assert leads[1, 2, 4] / compute_pair_leads(alone, BOXES)[1, 2, 4] == pytest.approx(38 / 48, rel=0.1)
    assert leads[1, 2, 4] == np.nanmax(leads)
    assert leads[3, 2, 4] < leads[1, 2, 4] / 3
    # What source, target and place suggest by twos changes nothing.
    by_twos = 9 * random.normal(size=(10, 1, 9)) + random.normal(size=(1, 10, 9)) + random.normal(size=(10, 10, 1))
    np.testing.assert_allclose(compute_pair_leads(margins + by_twos, BOXES)[1, 2, 4], leads[1, 2, 4], rtol=0.2)


def test_gumbel_p_value_agrees_with_scipy():
    others = np.random.default_rng(1).gumbel(3, 2, 200)
    scale = others.std(ddof=1) * np.sqrt(6) / np.pi
    location = others.mean() - np.euler_gamma * scale
    for largest in (8.0, 15.0):
        expected = 201 * stats.gumbel_r.sf(largest, location, scale)
        assert compute_gumbel_p_value(others, largest) == pytest.approx(1 - np.exp(-expected), rel=0.05)
    assert compute_gumbel_p_value(np.ones(5), 9.0) < 1e-9
    assert compute_gumbel_p_value(others, -99.0) == 1.0


def test_the_level_holds_and_one_pair_is_found():
    random = np.random.default_rng(2)
    tests = [find_leading_pair(draw_margins(random), BOXES) for _ in range(100)]
    assert np.mean([test.p_value <= 0.05 for test in tests]) <= 0.1
    found = 0
    for _ in range(20):
        margins = draw_margins(random)
        margins[4, 7, 3] += 20
        test = find_leading_pair(margins, BOXES)
        found += (test.pair, test.place, test.far) == ((4, 7), 3, True) and test.p_value <= 0.01
    assert found >= 18


def test_where_nothing_can_be_known():
    margins = draw_margins(np.random.default_rng(3))
    few = np.full_like(margins, np.nan)
    few[:3] = margins[:3]  # three sources cannot tell what is usual for a target
    assert np.isnan(compute_pair_leads(few, BOXES)).all()
    assert find_leading_pair(few, BOXES) is None
    assert find_leading_pair(np.where(np.isnan(margins), np.nan, 1.0), BOXES) is None  # patches do nothing
    overlapping = BOXES.copy()
    overlapping[:, 2] = 5  # each place has pixels in common with the middle one
    assert find_leading_pair(margins, overlapping) is None
    some = margins.copy()
    some[:, 8:] = np.nan  # classes that are targets of no pair take part in nothing
    np.testing.assert_array_equal(
        compute_pair_leads(some, BOXES)[:8, :8], compute_pair_leads(margins[:, :8], BOXES)[:8]
    )
