"""Poisson sampling from what a trainer recorded: right sampling is not accused, and others are."""

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics.sampling import compute_poisson_p_values


def summarise(included, rate):
    """P-values for the batches T×N of 0 and 1."""
    steps, records = included.shape
    sizes, uses = included.sum(axis=1), included.sum(axis=0)
    spreads = ((sizes - records * rate) ** 2).sum(), ((uses - steps * rate) ** 2).sum()
    return compute_poisson_p_values(int(included.sum()), *map(float, spreads), records=records, steps=steps, rate=rate)


@pytest.mark.parametrize(("records", "steps", "rate"), [(100, 50, 0.2), (1000, 40, 0.05), (300, 300, 0.01)])
def test_right_sampling_is_rarely_accused(records, steps, rate):
    random = np.random.default_rng(0)
    p_values = np.array([summarise(random.random((steps, records)) < rate, rate) for _ in range(400)])
    assert ((p_values < 0.05).mean(axis=0) < 0.08).all()
    assert ((p_values < 0.01).mean(axis=0) < 0.025).all()


def test_batches_that_are_drawn_otherwise_are_accused():
    records, steps, rate = 200, 50, 0.1
    random = np.random.default_rng(1)
    shuffled = np.zeros((steps, records), dtype=bool)
    for epoch in range(5):
        for batch, members in enumerate(np.array_split(random.permutation(records), 10)):
            shuffled[10 * epoch + batch, members] = True
    total, sizes, uses = summarise(shuffled, rate)
    assert total > 0.9 and sizes < 1e-6 and uses < 1e-6
    one_size = random.random((steps, records)).argsort(axis=1) < 20
    assert summarise(one_size, rate)[1] < 1e-6
    favoured = random.random((steps, records)) < rate * np.where(np.arange(records) < 20, 3, 7 / 9)
    assert summarise(favoured, rate)[2] < 1e-6
    assert summarise(random.random((steps, records)) < 0.12, rate)[0] < 1e-6
    assert summarise(np.ones((steps, records), dtype=bool), rate)[0] < 1e-6


def test_the_number_of_uses_is_tested_exactly_and_certain_uses_have_no_spread():
    assert (
        compute_poisson_p_values(30, 1.0, 1.0, records=10, steps=20, rate=0.1)[0]
        == stats.binomtest(30, 200, 0.1).pvalue
    )
    assert compute_poisson_p_values(200, 0.0, 0.0, records=10, steps=20, rate=1.0) == (1.0, 1.0, 1.0)
    assert compute_poisson_p_values(199, 1.0, 1.0, records=10, steps=20, rate=1.0)[1:] == (0.0, 0.0)
