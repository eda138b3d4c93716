"""Measures of model inversion against independent implementations and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import inversion, rates
from securitynet.records import Direction

LOWER = {"direction": Direction.LOWER}


def images(count, channels=1, side=28, seed=0):
    return np.random.default_rng(seed).random((count, channels, side, side)).astype(np.float32)


def test_mse_by_hand():
    first = np.zeros((2, 1, 2, 2))
    second = first.copy()
    second[0, 0, 0, 0], second[1] = 1.0, 0.5
    np.testing.assert_allclose(inversion.compute_mse(first, second), [0.25, 0.25])


@pytest.mark.parametrize("channels, side", [(1, 28), (3, 32), (1, 12)])
def test_ssim_is_that_of_scikit_image(channels, side):
    from skimage import metrics

    first = images(3, channels, side)
    second = np.clip(first + 0.3 * images(3, channels, side, seed=1) - 0.15, 0, 1).astype(np.float32)
    expected = [
        np.mean(
            [
                metrics.structural_similarity(
                    a.astype(float), b.astype(float), data_range=1.0, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False,
                )
                for a, b in zip(x, y, strict=True)
            ]
        )
        for x, y in zip(first, second, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(inversion.compute_ssim(first, second), expected, atol=1e-6)


def test_ssim_of_small_images_and_of_equal_and_opposite_ones():
    small = images(4, 1, 8)
    np.testing.assert_allclose(inversion.compute_ssim(small, small), 1.0)
    assert (inversion.compute_ssim(small, 1 - small) < -0.3).all()
    by_hand = _plain_ssim(small[0, 0], small[1, 0], radius=3)
    np.testing.assert_allclose(inversion.compute_ssim(small[:1], small[1:2]), by_hand, atol=1e-9)


def _plain_ssim(x, y, radius):
    """The definition with loops: Gaussian weights, windows that lie within the image."""
    line = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    x, y, found = x.astype(float), y.astype(float), []
    for row in range(radius, x.shape[0] - radius):
        for column in range(radius, x.shape[1] - radius):
            place = slice(row - radius, row + radius + 1), slice(column - radius, column + radius + 1)
            mx, my = (weights * x[place]).sum(), (weights * y[place]).sum()
            vx, vy = (weights * (x[place] - mx) ** 2).sum(), (weights * (y[place] - my) ** 2).sum()
            cov = (weights * (x[place] - mx) * (y[place] - my)).sum()
            luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
            found.append(luminance * (2 * cov + 9e-4) / (vx + vy + 9e-4))
    return np.mean(found)


def test_baselines_by_hand():
    means = np.zeros((3, 1, 1, 2))
    means[:, 0, 0] = [[0.0, 0.2], [0.4, 0.6], [0.0, 0.0]]
    # Black is nearer on average than grey and white: (0.04 / 2, (0.16 + 0.36) / 2, 0).
    np.testing.assert_allclose(inversion.compute_blank_mse(means), [0.02, 0.26, 0.0])
    mean = 1.2 / 6
    expected = [(mean**2 + 0) / 2, ((0.4 - mean) ** 2 + (0.6 - mean) ** 2) / 2, mean**2]
    np.testing.assert_allclose(inversion.compute_mean_colour_mse(means), expected)
    np.testing.assert_allclose(
        inversion.compute_other_class_mse(means), [(0.16 + 0.02) / 2, (0.16 + 0.26) / 2, (0.02 + 0.26) / 2]
    )
    assert np.isnan(inversion.compute_other_class_mse(means[:1])).all()


def test_no_single_colour_is_a_harder_baseline_than_the_mean_colour():
    means = images(4, 3, 5)
    best = inversion.compute_mean_colour_mse(means).mean()
    for colour in np.random.default_rng(1).random((50, 3)):
        constant = np.broadcast_to(colour[None, :, None, None], means.shape)
        assert inversion.compute_mse(means, constant).mean() >= best


def test_nearest_is_that_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    generator = np.random.default_rng(0)
    queries, pool = generator.normal(size=(40, 7)), generator.normal(size=(90, 7))
    distances, rows = NearestNeighbors(n_neighbors=1).fit(pool).kneighbors(queries)
    found, at = inversion.find_nearest(queries, pool)
    np.testing.assert_allclose(found, distances[:, 0])
    np.testing.assert_array_equal(at, rows[:, 0])
    np.testing.assert_array_equal(inversion.find_nearest(pool[3:4], pool)[0], 0.0)


def test_distance_to_a_centroid_is_in_units_of_real_images():
    members = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    np.testing.assert_allclose(
        inversion.compute_centroid_distance(np.array([[0.0, 0.0], [2.0, 0.0]]), members), [0.0, 1.0]
    )
    assert np.isnan(inversion.compute_centroid_distance(np.ones((1, 2)), np.ones((3, 2)))).all()


def test_ranks_count_half_of_the_equals():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 5.0, 5.0], [0.0, 5.0, 6.0]])
    np.testing.assert_array_equal(inversion.rank_requested_class(scores, np.array([0, 0, 1, 0])), [0, 1, 1, 2])


def test_clusters_that_agree_within_count_once_each():
    classes = np.repeat(np.arange(10), 7)
    hits = np.repeat(np.arange(10) < 3, 7)
    found = inversion.measure_clustered_rate("a", hits, classes, **LOWER)
    assert (found.low, found.high) == pytest.approx(tuple(map(float, rates.compute_clopper_pearson(3, 10, 0.95))))
    always = inversion.measure_clustered_rate("a", np.ones(70, bool), classes, **LOWER)
    assert always.low == pytest.approx(rates.compute_clopper_pearson(10, 10, 0.95)[0])
    assert always.high == always.value == 1.0


def test_a_correlation_that_is_given_is_not_estimated():
    classes, hits = np.repeat(np.arange(20), 4), np.tile([True, False, True, False], 20)
    found = inversion.measure_clustered_rate("a", hits, classes, correlation=1.0, **LOWER)
    assert (found.low, found.high) == pytest.approx(tuple(map(float, rates.compute_clopper_pearson(10, 20, 0.95))))


def test_one_class_is_judged_over_its_restarts():
    found = inversion.measure_clustered_rate("a", np.array([True] * 3 + [False] * 5), np.zeros(8, np.int64), **LOWER)
    assert (found.low, found.high) == pytest.approx(tuple(map(float, rates.compute_clopper_pearson(3, 8, 0.95))))


def test_intervals_of_correlated_guesses_cover_chance():
    """A target that knows nothing: each class's restarts look alike, so they are right or wrong together."""
    generator, covered, runs = np.random.default_rng(0), 0, 400
    classes = np.repeat(np.arange(20), 5)
    for _ in range(runs):
        favourite = generator.integers(0, 5, 20)
        seen = np.where(generator.random((20, 5)) < 0.8, favourite[:, None], generator.integers(0, 5, (20, 5)))
        hits = (seen == (np.arange(20) % 5)[:, None]).ravel()
        found = inversion.measure_clustered_rate("a", hits, classes, **LOWER)
        covered += found.low <= 0.2 <= found.high
    assert covered / runs > 0.92


def test_means_are_over_classes_with_students_interval():
    values, classes = np.array([1.0, 3.0, 4.0, 6.0, np.nan, 9.0]), np.array([0, 0, 1, 1, 2, 2])
    found = inversion.measure_mean_over_classes("m", values, classes, direction=Direction.HIGHER)
    low, _ = stats.t.interval(0.95, 2, np.mean([2, 5, 9]), stats.sem([2, 5, 9]))
    assert (found.value, found.high, found.n) == (
        pytest.approx(16 / 3),
        pytest.approx(16 / 3 * np.exp((16 / 3 - low) / (16 / 3))),
        3,
    )
    assert low < 0 == found.low  # a distance is not negative
    nothing = inversion.measure_mean_over_classes("m", np.full(4, np.nan), np.zeros(4, int), direction=Direction.HIGHER)
    assert nothing.value is None and nothing.note


def test_each_class_has_its_own_measurement():
    found = inversion.measure_by_class(
        "mse", np.array([1.0, 2.0, 5.0]), np.array([0, 0, 7]), direction=Direction.HIGHER
    )
    assert [m.name for m in found] == ["mse@class=0", "mse@class=7"]
    assert found[0].low < 1.5 < found[0].high
    assert (found[1].low, found[1].value, found[1].n) == (5.0, 5.0, 1)
    assert "not known" in found[1].note
