"""When an evaluation classifier can judge at all, and success relative to its accuracy on real images."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.metrics import inversion_judge, rates
from securitynet.records import Direction


def rate(count, n):
    return rates.rate("accuracy", count, n, direction=Direction.LOWER)


@pytest.mark.parametrize(
    "recognised, count, classes, commonest, blind",
    [
        (1, 12, 10, 2, True),  # the case of the issue
        (12, 12, 10, 2, False),
        (60, 120, 10, 60, True),  # it always says the commonest class
        (1, 2000, 10, 220, True),  # worse than guessing
        (0, 5, 2, 0, True),
        (8, 10, 2, 5, True),  # 44 to 97% includes one half
    ],
)
def test_blindness_is_an_interval_that_includes_chance(recognised, count, classes, commonest, blind):
    judge = inversion_judge.judge_accuracy(recognised, count)
    chance = inversion_judge.compute_chance_accuracy(classes, commonest, count)
    assert inversion_judge.is_blind(judge, chance) is blind


def test_a_classifier_that_guesses_is_rarely_believed():
    recognised = np.random.default_rng(0).binomial(40, 0.1, size=2000)
    believed = [not inversion_judge.is_blind(inversion_judge.judge_accuracy(int(k), 40), 0.1) for k in recognised]
    assert np.mean(believed) <= 0.025  # one side of a 95% interval


def test_ratio_by_hand_and_its_ends():
    found = inversion_judge.measure_accuracy_ratio(rate(30, 100), rate(60, 100))
    assert found.value == pytest.approx(0.5)
    # With a known denominator, the interval is that of the numerator, divided.
    certain = rate(1, 1).model_copy(update={"value": 0.5, "low": 0.5, "high": 0.5})
    numerator = rate(30, 100)
    scaled = inversion_judge.measure_accuracy_ratio(numerator, certain)
    assert (scaled.low, scaled.high) == pytest.approx((numerator.low / 0.5, numerator.high / 0.5))
    assert found.low < scaled.value and found.high - found.low > (scaled.high - scaled.low) * 0.5 / 0.6
    assert inversion_judge.measure_accuracy_ratio(rate(0, 20), rate(60, 100)).low == 0
    with pytest.raises(ValueError, match="above 0"):
        inversion_judge.measure_accuracy_ratio(rate(1, 20), rate(0, 100))


@pytest.mark.parametrize("success, accuracy, n, m", [(0.1, 0.9, 40, 60), (0.5, 0.4, 50, 50), (0.9, 0.9, 30, 200)])
def test_coverage_of_the_ratio(success, accuracy, n, m):
    draws = np.random.default_rng(1)
    held = 0
    for one, other in zip(draws.binomial(n, success, 400), draws.binomial(m, accuracy, 400), strict=True):
        found = inversion_judge.measure_accuracy_ratio(rate(int(one), n), rate(int(other), m))
        held += found.low <= success / accuracy <= found.high
    assert held / 400 >= 0.93
