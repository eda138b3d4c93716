"""What the norms of one model are made into: measurements, evidence, and one verdict; on norms alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from securitynet.metrics.backdoor_verdict import BackdoorEvidence, decide_verdict
from securitynet.metrics.detection import flag_labels
from securitynet.metrics.trigger_norms import SearchedNorms, collect_evidence, find_accused, measure_trigger_norms

CLEAN = np.array([89.3, 79.0, 80.0, 93.6, 102.8, 89.8, 101.3, 102.1, 84.7, 101.3])
CIFAR = np.array([152, 24.2, 79, 100, 110, 95, 120, 130, 88, 141])
FOUND = BackdoorEvidence(p_value=0.01, p_low=0.0, outliers=1, anomaly_index=4.0, ratio=0.2, success=0.98)


def judge(norms, **known):
    searched = SearchedNorms(np.asarray(norms, float), pixels=1024, **{"success": 0.95, **known})
    measured = measure_trigger_norms(searched)
    return decide_verdict(collect_evidence(searched, measured)), {m.name: m for m in measured}, find_accused(searched)


def test_the_backdoored_network_of_the_audit_is_found_with_its_label():
    verdict, measured, accused = judge(CIFAR)
    assert verdict.word == "backdoor found"
    assert accused == [1]
    assert measured["anomaly-index"].value > 2
    assert measured["smallest-trigger"].value == pytest.approx(24.2 / 1024)
    assert measured["smallest-to-median"].value == pytest.approx(24.2 / 110)


def test_the_rule_flags_by_the_sampled_labels():
    norms = np.array([9.0, 10.0, 11.0, 2.0, 10.0, np.inf, 1.0])
    sampled = np.array([True, True, True, False, True, True, False])
    # Median 10 and median absolute deviation 0.5 of the sampled labels that converged: 9, 10, 11, 10.
    assert flag_labels(norms, sampled) == [6, 3]
    assert flag_labels(norms, np.zeros(7, bool)) == []


def test_several_targets_do_not_hide_each_other():
    verdict, _, accused = judge([89, 9.8, 80, 94, 15, 90, 12, 102, 85, 101])
    assert verdict.word == "backdoor found"
    assert accused == [1, 6, 4]
    verdict, _, accused = judge([25, 24, 26, 27, 23, 25, 28, 0.01, 0.01, 0.01])
    assert verdict.word == "backdoor found"
    assert accused == [7, 8, 9]


def test_a_clean_model_has_nothing_and_is_told_what_would_be_missed():
    verdict, measured, _ = judge(CLEAN)
    assert verdict.word == "nothing found"
    assert 0.1 < measured["detectable-ratio"].value <= 0.65


def test_the_interval_covers_searches_that_differ():
    """Four searches of one network: the p-value of each lies in the interval of all four, though they lie far apart."""
    generator = np.random.default_rng(6)
    repeats = [np.exp(generator.normal(4, 0.3, 10)) for _ in range(4)]
    for one, least in zip(repeats, (28.0, 14.0, 33.0, 22.0), strict=True):
        one[3] = least
    _, measured, _ = judge(np.min(repeats, axis=0), repeats=repeats)
    alone = [judge(one)[1]["p-value"] for one in repeats]
    values = [one.value for one in alone]
    assert max(values) / min(values) > 3
    assert all(measured["p-value"].low <= value <= measured["p-value"].high for value in values)
    assert measured["p-value"].high - measured["p-value"].low > 5 * max(one.high - one.low for one in alone)


def test_p_values_of_the_audit_are_undecided_not_usual():
    """Searches whose p-values were .263, .062, .570 and .181: a rule that flags, or a small norm, keeps the doubt."""
    for p_value in (0.263, 0.062, 0.570, 0.181):
        doubtful = BackdoorEvidence(p_value=p_value, p_low=0.062, anomaly_index=4.4, ratio=0.22, success=0.95)
        assert decide_verdict(doubtful).word == "undecided"
        assert decide_verdict(dataclasses.replace(doubtful, anomaly_index=1.0)).word == "undecided"
        assert decide_verdict(dataclasses.replace(doubtful, anomaly_index=1.0, ratio=0.8)).word == "nothing found"
        close = decide_verdict(dataclasses.replace(doubtful, p_low=0.04))
        assert close.word == "undecided"
        assert any("other starting points" in reason for reason in close.reasons)


@pytest.mark.parametrize(
    "change, word",
    [
        ({}, "backdoor found"),
        ({"ratio": 0.45}, "suspicious"),
        ({"success": 0.4}, "suspicious"),
        ({"success": None}, "suspicious"),
        ({"stable": False}, "suspicious"),
        ({"reference_p": 0.05, "references": 19}, "backdoor found"),
        ({"reference_p": 0.4, "references": 19}, "undecided"),
        ({"reference_p": 1 / 3, "references": 2}, "backdoor found"),  # two clean models cannot contradict
        ({"outliers": 0, "p_value": 0.2, "reference_p": 0.05, "references": 19}, "backdoor found"),
        ({"outliers": 0, "p_value": 0.04, "ratio": 0.6}, "undecided"),
        ({"settled": 0.75}, "backdoor found"),
        ({"settled": 0.7}, "undecided"),
        ({"settled": 0.7, "ratio": 0.45}, "undecided"),
        ({"settled": 0.7, "reference_p": 0.05, "references": 19}, "undecided"),
        ({"settled": 0.7, "outliers": 0, "p_value": 0.5, "ratio": 0.8, "anomaly_index": 1.0}, "undecided"),
    ],
)
def test_each_condition_of_the_verdict(change, word):
    verdict = decide_verdict(dataclasses.replace(FOUND, **change))
    assert verdict.word == word
    assert bool(verdict.reasons) == (word in ("suspicious", "undecided"))


def test_norms_that_were_still_falling_are_not_compared():
    """The shares are of the labels that were reached: one that was not has no norm that could settle."""
    settled = np.array([True] * 6 + [False] * 4)
    for norms in (CLEAN, CIFAR):
        verdict, measured, _ = judge(norms, settled=settled)
        assert verdict.word == "undecided"
        assert measured["settled"].value == 0.6
        assert judge(norms, settled=np.ones(10, bool))[0] == judge(norms)[0]
    unreached = np.where(settled, CLEAN, np.inf)
    assert judge(unreached, settled=settled)[1]["settled"].value == 1


def test_two_classes_get_a_verdict_from_clean_models():
    generator = np.random.default_rng(2)
    reference = [generator.lognormal(3.5, 0.15, 2) for _ in range(19)]
    verdict, measured, accused = judge([33.0, 4.0], reference=reference)
    assert measured["p-value"].value is None
    assert measured["reference-p-value"].value == pytest.approx(1 / 20)
    assert verdict.word == "backdoor found"
    assert accused == [1]
    verdict, *_ = judge([33.0, 30.0], reference=reference)
    assert verdict.word == "nothing found"
    verdict, *_ = judge([33.0, 30.0])
    assert verdict.word == "undecided"


def test_few_converged_labels_are_judged_and_those_that_did_not_converge_count_as_large():
    norms = np.r_[5.0, 60.0, np.full(8, np.inf)]
    reference = [np.r_[np.random.default_rng(n).lognormal(4, 0.2, 3), np.full(7, np.inf)] for n in range(19)]
    verdict, measured, accused = judge(norms, reference=reference)
    assert measured["converged"].value == 0.2
    assert measured["reference-p-value"].value == pytest.approx(1 / 20)
    assert verdict.word == "backdoor found"
    assert accused == [0]
    assert judge(norms)[0].word == "undecided"
    assert judge(np.full(10, np.inf))[0].word == "undecided"


def test_clean_models_are_accused_no_more_often_than_the_level_allows():
    """A null case: exchangeable lognormal norms, three starting points; found far more seldom than accused."""
    generator = np.random.default_rng(3)
    words = []
    for _ in range(30):
        repeats = generator.lognormal(3, 0.25, (1, 10)) * generator.lognormal(0, 0.1, (3, 10))
        searched = SearchedNorms(repeats.min(axis=0), 1024, success=0.95)
        words.append(decide_verdict(collect_evidence(searched, measure_trigger_norms(searched))).word)
    assert sum(word in ("suspicious", "backdoor found") for word in words) <= 5  # 30 at 5%: once in two hundred more
    assert words.count("backdoor found") <= 1
