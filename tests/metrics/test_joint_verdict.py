"""The joint verdict of several scans: Holm's correction by hand, disagreement, and its level on clean models."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from securitynet.metrics.joint_verdict import (
    NAME,
    Scan,
    correct_p_values,
    join_verdicts,
    measure_joint_verdict,
    read_scans,
)
from securitynet.records import Direction, Measurement

NAMES = tuple(f"digit {number}" for number in range(10))


def measure(name, value, n=10, note=None):
    return Measurement(
        name=name, value=value, low=value, high=value, level=0.95, n=n, direction=Direction.LOWER, method="", note=note
    )


def test_p_values_are_corrected_as_statsmodels_does():
    p_values = [0.04, 0.001, 0.3, 0.02]
    scans = [Scan("a", 0, p) for p in p_values]
    np.testing.assert_allclose(correct_p_values(scans), multipletests(p_values, method="holm")[1])
    # A scan without a test is not counted, so the others pay nothing for it.
    assert correct_p_values([Scan("a", 2, 0.02), Scan("b", 1)]) == [0.02, None]


def test_an_accusation_is_never_cleared_by_scans_that_find_nothing():
    scans = [Scan("Neural Cleanse", 0, 0.6, 1), Scan("MM-BD", 2, 0.008, 3), Scan("the class-pair search", 0, 0.9, 2)]
    joint = join_verdicts(scans, NAMES)
    assert joint.word == "suspicious"
    assert joint.sentence == (
        "Suspicious: MM-BD accuses class 3 (digit 3) with p\u00a0=\u00a00.024 (p-values corrected for 3 scans by "
        "Holm's method). Neural Cleanse and the class-pair search do not accuse it; that does not clear the model, "
        "because each scan looks for other kinds of triggers."
    )


def test_an_accusation_that_several_scans_of_a_clean_model_may_give_is_undecided():
    scans = [Scan("MM-BD", 2, 0.03, 3), *(Scan(f"scan {number}", 0, 0.5) for number in range(3))]
    joint = join_verdicts(scans)
    assert (joint.rank, joint.p_value) == (1, pytest.approx(0.12))
    assert "MM-BD accuses class 3" in joint.sentence
    assert "not significant after the correction" in joint.sentence
    assert "nothing found" not in joint.sentence.lower()


def test_scans_that_accuse_different_classes_say_so():
    joint = join_verdicts([Scan("Neural Cleanse", 3, 0.001, 1), Scan("MM-BD", 2, 0.002, 3)], NAMES)
    assert joint.word == "backdoor found"
    assert "class 1 (digit 1)" in joint.sentence
    assert "class 3 (digit 3)" in joint.sentence
    assert joint.sentence.endswith("or a scan is wrong.")


def test_a_trigger_that_works_is_not_called_undecided_for_a_correction():
    scans = [Scan("Neural Cleanse", 3, 0.03, 1), Scan("MM-BD", 0, 0.5)]
    assert join_verdicts(scans).word == "suspicious"


@pytest.mark.parametrize(
    ("scans", "rank", "start"),
    [
        (
            [Scan("MM-BD", 0, 0.4), Scan("the class-pair search", 0, 0.3)],
            0,
            "Nothing found by 2 scans (smallest p-value",
        ),
        (
            [Scan("MM-BD", 0, 0.4), Scan("the class-pair search", 1)],
            1,
            "Undecided: the class-pair search is undecided; MM-BD found nothing",
        ),
        (
            [Scan("MM-BD", 1), Scan("the class-pair search", 1)],
            1,
            "Undecided: MM-BD and the class-pair search are undecided.",
        ),
    ],
)
def test_without_an_accusation(scans, rank, start):
    joint = join_verdicts(scans)
    assert joint.rank == rank
    assert joint.sentence.startswith(start)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_clean_models_are_accused_no_more_often_than_one_scan_may(shared):
    # Four scans, each of which accuses at p <= 0.05; independent ones, and ones that mostly agree.
    random = np.random.default_rng(0)
    common, own = random.normal(size=(2000, 1)), random.normal(size=(2000, 4))
    ranks = np.argsort(np.argsort(np.sqrt(shared) * common + np.sqrt(1 - shared) * own, axis=0), axis=0)
    p_values = (ranks + 1) / 2000
    accused = [
        join_verdicts([Scan(f"scan {place}", 2 if p <= 0.05 else 0, float(p), 0) for place, p in enumerate(row)]).rank
        >= 2
        for row in p_values
    ]
    assert 0.01 < np.mean(accused) <= 0.06


def test_a_plug_in_that_accuses_without_a_test_is_heard():
    measured = [
        measure("backdoor.mine.verdict", 2),
        measure("backdoor.mine.suspect-label", 5),
        measure("backdoor.mm-bd.verdict", 0),
        measure("backdoor.mm-bd.p-value", 0.5),
    ]
    joint = measure_joint_verdict(measured)
    assert joint.value == 2
    assert joint.note.startswith("Suspicious: mine accuses class 5 (")


def test_scans_are_read_from_measurements():
    measured = [
        measure("backdoor.neural-cleanse.verdict", 2, note="…"),
        measure("backdoor.neural-cleanse.p-value", 0.4),
        measure("backdoor.neural-cleanse.reference-p-value", 0.02, n=49),
        measure("backdoor.neural-cleanse.suspect-label", 7),
        measure("backdoor.mm-bd@none.verdict", 0),
        measure("backdoor.mm-bd@none.p-value", 0.5),
        measure("backdoor.strip.false-rejection-rate", 0.05),
        measure("membership.loss.auc", 0.7),
    ]
    scans = read_scans(measured)
    assert scans == [Scan("Neural Cleanse", 2, 0.02, 7), Scan("MM-BD", 0, 0.5)]
    joint = measure_joint_verdict(measured)
    assert (joint.name, joint.value, joint.n) == (NAME, 2.0, 2)
    assert "class 7" in joint.note
    assert measure_joint_verdict(measured[:4]) is None
    # With few clean models their comparison cannot accuse at 5%, so the norms' own test counts.
    measured[2] = measure("backdoor.neural-cleanse.reference-p-value", 0.2, n=4)
    assert read_scans(measured)[0].p_value == 0.4
