"""Measures of evasion against counts done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.metrics import evasion, paired, rates
from securitynet.records import Direction, Measurement

LABELS = np.zeros(10, dtype=np.int64)
CLEAN = np.asarray([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])  # 8 of 10 are right
SMALL = np.asarray([1, 1, 1, 0, 0, 0, 0, 0, 1, 1])  # three evade
LARGE = np.asarray([0, 1, 0, 1, 0, 0, 0, 0, 0, 1])  # two evade, one of them anew; one that was wrong becomes right


@pytest.fixture
def found():
    measured = evasion.measure_evasion(LABELS, CLEAN, np.stack([SMALL, LARGE]), [0.01, 8 / 255], level=0.95)
    return {m.name: m for m in measured}


def test_counts_by_hand(found):
    assert found["clean-accuracy"].value == 0.8
    assert found["accuracy-drop@epsilon=0.01"].value == pytest.approx(0.8 - 0.5)
    assert found["accuracy-drop@epsilon=0.0313725"].value == pytest.approx(0.8 - 0.7)
    assert found["robust-accuracy@epsilon=0.01"].value == 0.5
    assert found["robust-accuracy@epsilon=0.0313725"].value == 0.4, "what evades with less evades with more"
    assert found["success@epsilon=0.01"].value == 3 / 8
    assert found["success@epsilon=0.0313725"].value == 4 / 8


def test_intervals_are_paired_or_exact(found):
    drop, success = found["accuracy-drop@epsilon=0.01"], found["success@epsilon=0.01"]
    assert drop.method == paired.MOVER_PAIRED and drop.n == 10
    assert (success.low, success.high) == pytest.approx(
        tuple(map(float, rates.compute_clopper_pearson(3, 8, 0.95)))
    ) and success.n == 8
    # As if the images had not been the same ones, the interval would be wider.
    unpaired = rates.measure_difference("d", (8, 10), (5, 10), direction=Direction.LOWER)
    assert drop.high - drop.low < unpaired.high - unpaired.low


def test_directions(found):
    higher = {name.partition("@")[0] for name, m in found.items() if m.direction is Direction.HIGHER}
    assert higher == {"clean-accuracy", "robust-accuracy"}


def test_a_drop_that_shrinks_is_explained(found):
    assert found["accuracy-drop@epsilon=0.01"].note is None
    assert found["accuracy-drop@epsilon=0.0313725"].note == evasion.TOO_LONG


def test_nothing_to_evade_where_nothing_is_classified_correctly():
    measured = evasion.measure_evasion(LABELS, LABELS + 1, LABELS[None] + 1, [0.1], level=0.95)
    success = next(m for m in measured if m.name.startswith("success"))
    assert success.value is None and success.n == 0 and "No image" in success.note


def test_an_attack_that_does_nothing_drops_nothing():
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 3, 500)
    measured = evasion.measure_evasion(rng.integers(0, 3, 500), clean, clean[None], [0.1], level=0.95)
    drop = next(m for m in measured if m.name.startswith("accuracy-drop"))
    assert drop.value == 0 and drop.low <= 0 <= drop.high and drop.high < 0.01


@pytest.mark.parametrize(
    "vanished, fooled, warned",
    [(0, 32, False), (1, 31, False), (0, 30, False), (0, 20, True), (60, 32, True), (60, 0, True)],
)
def test_masked_gradients_warn(vanished, fooled, warned):
    found, warning = evasion.measure_masking(vanished, 100, fooled, 32, level=0.95)
    assert {m.name for m in found} == {"vanished-gradients", "unbounded-success"}
    assert (warning is not None) is warned
    if warned:
        assert warning.startswith(evasion.WARNING)


def test_no_checks_no_warning():
    assert evasion.measure_masking(0, 0, 0, 0, level=0.95) == ([], None)


def drop(low, high):
    return Measurement(
        name="d", value=(low + high) / 2, low=low, high=high, n=9, direction=Direction.LOWER, method="by hand"
    )


def test_transfer_beats_white_box_only_beyond_the_intervals():
    assert evasion.is_beaten(drop(0.1, 0.2), drop(0.25, 0.4))
    assert not evasion.is_beaten(drop(0.1, 0.3), drop(0.25, 0.4))
    assert not evasion.is_beaten(drop(0.3, 0.4), drop(0.1, 0.2))


def test_median_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = np.log(2) * 10
    hits = 0
    for _ in range(400):
        measured = evasion.measure_median("queries", rng.exponential(10, 31), level=0.9)
        hits += measured.low <= truth <= measured.high
    assert stats.binomtest(hits, 400, 0.9, alternative="less").pvalue > 1e-3
    assert hits < 400, "and is no wider than it must be"


def test_median_of_one():
    assert evasion.measure_median("queries", np.asarray([7]), level=0.95).low == 7
