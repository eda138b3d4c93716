"""Bounds from one run: by hand, by brute force and by linear programming, and valid on mechanisms of known epsilon."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import optimize, stats

from securitynet.metrics import f_dp_audit, one_run_audit
from securitynet.metrics.one_run_audit import Guesses


def exact_p_value(canaries, number, correct, odds, delta):
    """Theorem 5.2 in exact fractions, term by term; ``odds`` is e^ε."""
    rate = Fraction(odds, odds + 1)
    mass = [math.comb(number, k) * rate**k * (1 - rate) ** (number - k) for k in range(number + 1)]
    beta = sum(mass[correct:])
    alpha = max((sum(mass[correct - i : correct], Fraction(0)) / i for i in range(1, correct + 1)), default=Fraction(0))
    return float(min(beta + 2 * canaries * Fraction(delta) * alpha, 1))


@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 1000), Fraction(1, 10)])
@pytest.mark.parametrize(("number", "correct"), [(20, 20), (20, 17), (20, 12), (7, 0), (13, 1)])
@pytest.mark.parametrize("odds", [1, 3, 20])
def test_p_value_equals_exact_fractions(number, correct, odds, delta):
    value = one_run_audit.bound_p_value(Guesses(40, number, 0, correct), math.log(odds), float(delta))
    assert value == pytest.approx(exact_p_value(40, number, correct, odds, delta), rel=1e-9)


def test_bound_by_hand():
    # All guesses of 10 canaries correct. Two plans, (5, 0) and (5, 5): 0.025 each. q^10 = 0.025 for the larger one.
    included = np.arange(10) < 5
    measured = one_run_audit.measure_epsilon(included.astype(float), included, delta=0.0)
    assert one_run_audit.plan_guesses(10) == [(5, 0), (5, 5)]
    rate = 0.025 ** (1 / 10)
    assert measured.value == pytest.approx(math.log(rate / (1 - rate)), abs=2e-4)
    assert measured.n == 10 and measured.note.startswith("10 of 10 guesses are correct")


def test_guesses_are_planned_without_the_coins_and_ties_are_broken_by_position():
    scores = np.zeros(40)
    included = np.arange(40) < 20
    made = one_run_audit.guess(scores, included)
    assert [(g.highest, g.lowest) for g in made] == one_run_audit.plan_guesses(40)
    assert all(g.correct == g.highest + g.lowest for g in made)  # the order happens to be right here
    assert all(g.correct == 0 for g in one_run_audit.guess(scores, ~included))


def test_too_few_canaries_are_not_resolvable():
    for compute in (one_run_audit.measure_epsilon, f_dp_audit.measure_gaussian_epsilon):
        measured = compute(np.arange(9.0), np.arange(9) > 4)
        assert measured.value is None and "at least 10 canaries" in measured.note


def most_probable(guesses, slopes):
    """The highest probability of so many correct guesses that a curve allows, by linear programming.

    A concave curve is the smallest of its tangents y = a + b·x: for each of them and each i, the sum of j·p_j / m over
    j ≥ i is at most a + b · the sum of (c − j)·p_j / m over j ≥ i − 1 (Mahloujifar et al., Theorem 3.2).
    """
    c, m = guesses.number, guesses.canaries
    rows, limits = [], []
    for i in range(1, guesses.correct + 1):
        for a, b in slopes:
            row = np.array([(j / m if j >= i else 0) - (b * (c - j) / m if j >= i - 1 else 0) for j in range(c + 1)])
            rows.append(row)
            limits.append(a)
    objective = -(np.arange(c + 1) >= guesses.correct).astype(float)
    solved = optimize.linprog(objective, rows, limits, np.ones((1, c + 1)), [1], bounds=(0, 1), method="highs")
    assert solved.success
    return -solved.fun


@pytest.mark.parametrize("counts", [(10, 10, 10), (12, 10, 9), (8, 8, 7), (30, 12, 12)])
@pytest.mark.parametrize("epsilon_delta", [(1.0, 0.0), (0.5, 0.01)])
def test_recursion_finds_the_optimum_of_linear_programming(counts, epsilon_delta):
    canaries, number, correct = counts
    epsilon, delta = epsilon_delta
    guesses = Guesses(canaries, number, 0, correct)
    slopes = [(delta, math.exp(epsilon)), (1 - math.exp(-epsilon) * (1 - delta), math.exp(-epsilon))]
    optimum = most_probable(guesses, slopes)
    curve = f_dp_audit.make_profile_curve([epsilon_delta])
    assert f_dp_audit.is_ruled_out(guesses, curve, min(1.01 * optimum, 0.999))
    assert not f_dp_audit.is_ruled_out(guesses, curve, 0.99 * optimum)


def test_curves_by_hand():
    gaussian = f_dp_audit.make_gaussian_curve(1.0)
    assert gaussian(stats.norm.cdf(1.3)) == pytest.approx(stats.norm.cdf(0.3))
    pair = f_dp_audit.make_profile_curve([(math.log(2), 0.1)])
    assert pair(0.3) == pytest.approx(0.1)  # (0.3 − 0.1) / 2
    assert pair(0.9) == pytest.approx(0.7)  # 1 − 0.1 − 2 · 0.1
    assert pair(0.05) == 0


def test_gaussian_epsilon_equals_numerical_integration():
    # delta(ε) is the mass of the positive part of N(μ, 1) − e^ε · N(0, 1).
    epsilon = f_dp_audit.convert_gaussian_epsilon(1.5, 1e-3)
    x = np.linspace(-10, 12, 400_001)
    excess = np.maximum(stats.norm.pdf(x, 1.5) - math.exp(epsilon) * stats.norm.pdf(x), 0)
    assert np.trapezoid(excess, x) == pytest.approx(1e-3, rel=1e-4)
    assert f_dp_audit.convert_gaussian_epsilon(0.0, 1e-5) == 0


def simulate(canaries, truth, seeds, answer, **options):
    """Share of bounds above the truth, and the median of the bounds, for both methods."""
    one_run, gaussian = [], []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        included = generator.random(canaries) < 0.5
        scores = answer(generator, included)
        one_run.append(one_run_audit.measure_epsilon(scores, included, **options).value)
        gaussian.append(f_dp_audit.measure_gaussian_epsilon(scores, included, **options).value)
    return [(float(np.mean(np.array(values) > truth)), float(np.median(values))) for values in (one_run, gaussian)]


def randomised_response(epsilon):
    rate = math.exp(epsilon) / (1 + math.exp(epsilon))
    return lambda generator, included: (
        np.where(generator.random(len(included)) < rate, included, ~included) + 1e-6 * generator.random(len(included))
    )


def test_holds_on_randomised_response_and_comes_near_the_truth():
    # Epsilon is exact there, and Steinke's bound is tight, so a faulty one would exceed it often. Its trade-off curve
    # is no Gaussian one, so only the first bound is promised to hold.
    (above, median), _ = simulate(600, 2.0, 20, randomised_response(2.0), delta=1e-9)
    assert above <= 0.05 and median > 1.5


def test_holds_on_the_gaussian_mechanism_and_the_curve_says_more():
    truth = f_dp_audit.convert_gaussian_epsilon(1.0, 1e-5)
    (above, one_run), (gaussian_above, gaussian) = simulate(
        500, truth, 10, lambda generator, included: included + generator.normal(size=len(included))
    )
    assert above == gaussian_above == 0 and 0.8 < one_run < gaussian < truth


def test_shows_nothing_where_there_is_nothing():
    results = simulate(100, 0.0, 40, lambda generator, included: generator.normal(size=len(included)))
    assert all(above <= 0.05 for above, _ in results)


@pytest.mark.slow
@pytest.mark.parametrize("canaries", [30, 100, 1000])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 4.0])
def test_coverage_on_randomised_response(canaries, epsilon):
    (above, _), _ = simulate(canaries, epsilon, 300, randomised_response(epsilon), delta=1e-9)
    assert above <= 0.07  # nominal 0.05, and the error of 300 simulations


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
def test_right_gaussian_mechanism_is_not_accused(mu):
    accused = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        included = generator.random(500) < 0.5
        scores = mu * included + generator.normal(size=500)
        accused += f_dp_audit.contradicts_curve(scores, included, f_dp_audit.make_gaussian_curve(mu))
    assert accused / 300 <= 0.03
