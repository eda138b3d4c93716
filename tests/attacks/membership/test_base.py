"""Scores from outputs against 60-digit arithmetic and by direction; thresholds by class; what is refused."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from securitynet.attacks.membership import _confidence
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.attacks.membership.base import FEWEST_PER_CLASS, tune_threshold
from securitynet.attacks.membership.confidence import Confidence
from securitynet.attacks.membership.correctness import Correctness
from securitynet.attacks.membership.entropy import Entropy
from securitynet.attacks.membership.loss import Loss
from securitynet.errors import ConfigurationError, SecurityNetError, SplitError, TargetError
from securitynet.models.targets.signals import Signals
from securitynet.records import Queries

getcontext().prec = 60


def posteriors(row):
    exponentials = [Decimal(float(z)).exp() for z in row]
    return [e / sum(exponentials) for e in exponentials]


def signals(logits, labels):
    logits = np.asarray(logits, dtype=np.float32)
    return Signals(np.arange(len(logits)), logits, np.asarray(labels, dtype=np.int64), "logits", Queries())


@pytest.mark.parametrize("scale", [0.1, 3, 30])
def test_functions_of_outputs_agree_with_their_definitions_in_high_precision(scale):
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, scale, (30, 6)), generator.integers(0, 6, 30)
    p = [posteriors(row) for row in logits]
    own = [row[label] for row, label in zip(p, labels, strict=True)]
    rest = [sum(v for i, v in enumerate(row) if i != label) for row, label in zip(p, labels, strict=True)]
    expected = {
        "scaled": [float((a / b).ln()) for a, b in zip(own, rest, strict=True)],
        "log": [float(a.ln()) for a in own],
        "entropy": [float(-sum(v * v.ln() for v in row)) for row in p],
    }
    np.testing.assert_allclose(_confidence.scale_confidence(logits, labels), expected["scaled"], rtol=1e-9)
    np.testing.assert_allclose(_confidence.log_confidence(logits, labels), expected["log"], rtol=1e-9)
    np.testing.assert_allclose(_confidence.compute_entropy(logits), expected["entropy"], rtol=1e-9)


@pytest.mark.parametrize("attack", [Loss(), Confidence(), Confidence(of="label"), Entropy()])
def test_direction_and_no_ties_among_very_confident_records(attack):
    sure, surer, surest = [[z, 0.0, 0.0] for z in (2.0, 60.0, 300.0)]
    scores = attack.score(signals([[0.1, 0, 0], sure, surer, surest], [0, 0, 0, 0]))
    assert (np.diff(scores) > 0).all()


def test_what_is_confident_and_wrong_looks_like_a_member_only_to_attacks_that_ignore_labels():
    given = signals([[9.0, 0, 0], [9.0, 0, 0]], [0, 1])  # the same answer, right for the first and wrong for the second
    assert np.ptp(Confidence().score(given)) == 0 == np.ptp(Entropy().score(given))
    assert np.diff(Loss().score(given)) < 0 and np.diff(Confidence(of="label").score(given)) < 0


def test_confidence_of_the_label_ranks_like_the_loss():
    generator = np.random.default_rng(1)
    given = signals(generator.normal(0, 5, (100, 4)), generator.integers(0, 4, 100))
    np.testing.assert_array_equal(np.argsort(Loss().score(given)), np.argsort(Confidence(of="label").score(given)))


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        ([[np.nan, 0.0], [1.0, 0.0]], [0, 0], "not finite for 1 of 2"),
        ([[np.inf, 0.0]], [0], "not finite"),
        ([[-np.inf, -np.inf]], [0], "not finite"),
        ([[1.0], [2.0]], [0, 0], "single class"),
        ([[1.0, 0.0]], [2], "Labels range"),
        ([[1.0, 0.0]], [0, 1], "do not match"),
    ],
)
def test_outputs_that_mean_nothing_are_refused(logits, labels, message):
    with pytest.raises(TargetError, match=message):
        _confidence.scale_confidence(np.array(logits), np.array(labels))


def test_thresholds_by_class_are_those_of_each_class_alone():
    generator = np.random.default_rng(2)
    labels = np.repeat([0, 1], 200)
    is_member = np.tile([True, False], 200)
    scores = generator.normal(size=400) + 2 * is_member + 10 * labels  # one class scores 10 higher, members or not
    known = generator.random(400) < 0.5
    thresholds = tune_threshold(scores, is_member, known, labels)
    common = tune_threshold(scores, is_member, known)
    assert isinstance(common, float) and len(np.unique(thresholds)) == 2
    for label in (0, 1):
        of_class = labels == label
        alone = tune_threshold(scores[of_class], is_member[of_class], known[of_class])
        assert (thresholds[of_class] == alone).all()

    def accuracy(threshold):
        return ((scores >= threshold) == is_member)[~known].mean()

    assert accuracy(thresholds) > accuracy(common) + 0.15


def test_a_class_with_too_few_known_records_keeps_the_common_threshold():
    generator = np.random.default_rng(3)
    labels = np.array([0] * 100 + [1] * (2 * FEWEST_PER_CLASS - 2))
    is_member = np.arange(len(labels)) % 2 == 0
    scores = generator.normal(size=len(labels)) + is_member
    known = np.ones(len(labels), bool)
    thresholds = tune_threshold(scores, is_member, known, labels)
    assert (thresholds[labels == 1] == tune_threshold(scores, is_member, known)).all()


def test_a_threshold_needs_known_records_of_both_kinds():
    with pytest.raises(SplitError, match="one group is empty"):
        tune_threshold(np.arange(4.0), np.array([1, 1, 0, 0], bool), np.array([1, 1, 0, 0], bool))


def test_nan_scores_are_refused_by_number():
    with pytest.raises(SecurityNetError, match="1 of 3"):
        tune_threshold(np.array([1.0, np.nan, 0.0]), np.array([1, 0, 0], bool), np.ones(3, bool))


def test_a_fixed_threshold_is_not_tuned_by_class():
    with pytest.raises(ConfigurationError, match="fixed threshold"):
        Correctness(per_class=True)
    assert Correctness().per_class is False


def test_output_with_thresholds_facts_and_notes_survives_being_kept():
    generator = np.random.default_rng(4)
    n = 60
    output = MembershipScores(
        np.arange(n),
        generator.normal(size=n),
        np.arange(n) % 2 == 0,
        generator.normal(size=n),
        generator.random(n) < 0.7,
        ("Shadow models differ.",),
        generator.integers(0, 3, n),
        generator.random(n) < 0.5,
        generator.normal(size=n),
    )
    again = MembershipScores.from_arrays(output.arrays())
    assert again.breakdown() == output.breakdown() != []
    measured = again.measurements(level=0.95, fprs=(0.1,), seed=0)
    assert measured == output.measurements(level=0.95, fprs=(0.1,), seed=0)
    assert all("Shadow models differ." in m.note for m in measured)
    assert sum(s.members for s in again.breakdown() if s.by == "class") == (output.is_member & output.held_out).sum()
