"""Modified entropy against the formula evaluated with 60 digits, and its direction on constructed cases."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from securitynet.attacks.membership.modified_entropy import compute_modified_entropy

getcontext().prec = 60


def by_definition(logits, label):
    exponentials = [Decimal(float(z)).exp() for z in logits]
    total = sum(exponentials)
    p = [e / total for e in exponentials]
    value = -(1 - p[label]) * p[label].ln()
    value -= sum(p[i] * (1 - p[i]).ln() for i in range(len(p)) if i != label)
    return float(value)


@pytest.mark.parametrize("scale", [0.1, 1, 5, 30])
def test_agrees_with_the_definition_in_high_precision(scale):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, scale, (40, 7))
    labels = generator.integers(0, 7, 40)
    expected = [by_definition(row, label) for row, label in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(compute_modified_entropy(logits, labels), expected, rtol=1e-9)


def test_two_classes_by_hand():
    # p = (3/4, 1/4), label 0: −(1/4) ln(3/4) − (1/4) ln(3/4) = 0.5 ln(4/3).
    logits = np.log([[3.0, 1.0]])
    assert compute_modified_entropy(logits, np.array([0]))[0] == pytest.approx(0.5 * np.log(4 / 3))


def test_very_confident_records_do_not_tie():
    # Both posteriors are 1 in float32; the surer one must still have the lower entropy.
    logits = np.array([[40.0, 0.0, 0.0], [60.0, 0.0, 0.0]], dtype=np.float32)
    sure, surer = compute_modified_entropy(logits, np.array([0, 0]))
    assert sure > surer > 0


def test_direction_confident_and_right_is_below_unsure_is_below_confident_and_wrong():
    right, unsure, wrong = compute_modified_entropy(
        np.array([[8.0, 0, 0], [0.1, 0, 0], [0, 8.0, 0]]), np.array([0, 0, 0])
    )
    assert right < unsure < wrong


def test_is_invariant_to_a_constant_added_to_the_logits():
    logits = np.random.default_rng(1).normal(size=(5, 4))
    labels = np.array([0, 1, 2, 3, 0])
    np.testing.assert_allclose(
        compute_modified_entropy(logits, labels), compute_modified_entropy(logits - 700, labels), rtol=1e-9
    )
