"""What reports say of evasion."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.metrics import evasion as metrics
from securitynet.records import Access, Auxiliary, Queries, ThreatModel
from securitynet.reports import families, words
from securitynet.reports.families import evasion
from securitynet.reports.robustness import draw_robustness
from securitynet.results.document import ResultDocument, TrialSummary

LABELS = np.zeros(200, dtype=np.int64)


def trial(name, access=Access.WHITE_BOX, **configuration):
    return TrialSummary(
        id=name,
        name=f"evasion.{name}",
        status="ok",
        reason=None,
        threat_model=ThreatModel(access=access, auxiliary=Auxiliary.NONE),
        configuration=configuration,
        queries=Queries(),
        seconds={},
    )


def measured(name, *evading, epsilons=(0.01, 0.1), note=()):
    """So many of 200 correctly classified images evade at each epsilon."""
    perturbed = np.stack([(np.arange(200) < count).astype(np.int64) for count in evading])
    found = metrics.measure_evasion(LABELS, LABELS, perturbed, epsilons, level=0.95)
    return [m.renamed(f"evasion.{name}").with_notes(*note) for m in found]


def document(*measurements):
    return ResultDocument.model_construct(trials=(), measurements=tuple(m for group in measurements for m in group))


def test_the_strongest_with_and_without_gradients():
    trials = [trial("fgsm"), trial("pgd"), trial("fgsm-transfer@partial", Access.BLACK_BOX)]
    found = document(measured("fgsm", 100, 120), measured("pgd", 150, 190), measured("fgsm-transfer@partial", 20, 60))
    white, black = evasion.write_sentences(found, trials)
    assert "by PGD; with up to 10%, 95" in white and "1% of its range" in white and "75" in white
    assert "10.0%" in black and "FGSM transfer (partial data)" in black


def test_masked_gradients_are_told():
    warning = f"{metrics.WARNING}: steps without a bound leave 20 of 32 images classified correctly."
    found = document(measured("fgsm", 3, 5, note=("A fact.", warning)))
    sentence = evasion.write_sentences(found, [trial("fgsm")])[-1]
    assert sentence.startswith("FGSM: WARNING") and "A fact" not in sentence


@pytest.mark.parametrize("transferred, warned", [((100, 150), True), ((3, 6), False)])
def test_transfer_that_beats_the_gradients_warns(transferred, warned):
    trials = [trial("fgsm"), trial("fgsm-transfer@partial", Access.BLACK_BOX)]
    found = document(measured("fgsm", 4, 5), measured("fgsm-transfer@partial", *transferred))
    said = evasion.write_sentences(found, trials)
    assert any("less robust than its gradients suggest" in sentence for sentence in said) is warned


def test_many_questions_may_beat_one_step_but_not_many():
    square = trial("square", Access.BLACK_BOX)
    for white, warned in (("fgsm", False), ("pgd", True)):
        found = document(measured(white, 4, 5), measured("square", 100, 150))
        said = evasion.write_sentences(found, [trial(white), square])
        assert any(metrics.WARNING in sentence for sentence in said) is warned


def test_norms_are_not_mixed():
    found = document(measured("pgd", 10, 20), measured("auto-attack", 100, 150, epsilons=(0.25, 0.5)))
    one, other = evasion.write_sentences(found, [trial("pgd"), trial("auto-attack", norm="l2")])
    assert "each pixel" in one and "0.25 in the Euclidean norm" in other


def test_nothing_is_said_where_nothing_was_measured():
    assert evasion.write_sentences(document(), [trial("fgsm")]) == []


def test_measurements_have_names_for_people():
    assert words.find_kind("evasion.fgsm.accuracy-drop@epsilon=0.01").label == "Accuracy drop at ε = 0.01"
    several = words.find_kind("evasion.fgsm-transfer@partial.surrogate-2.success@epsilon=0.1").label
    assert several.startswith("surrogate-2: ") and several.endswith("ε = 0.1")


def test_every_measurement_of_an_attack_has_a_name():
    found = measured("fgsm", 5, 10)
    checks, _ = metrics.measure_masking(0, 10, 10, 10, level=0.95)
    extra = metrics.measure_median("queries@epsilon=0.1", np.arange(9), level=0.95)
    for measurement in [*found, *checks, extra]:
        own = measurement.name.removeprefix("evasion.fgsm.")
        assert families.find_family_kind(f"evasion.fgsm.{own}") is not None, own


def test_accuracy_over_epsilon_is_drawn_for_each_norm_with_two_budgets():
    names = [f"fgsm-{number}" for number in range(8)]
    trials = (*map(trial, names), trial("pgd", norm="l2"))
    groups = [measured(name, 10 * number, 100) for number, name in enumerate(names)]
    found = ResultDocument.model_construct(
        measurements=tuple(m for group in [*groups, measured("pgd", 150, epsilons=(0.5,))] for m in group),
        trials=trials,
    )
    (figure,) = draw_robustness(found, "t0")  # none for l2, of which there is one budget
    assert figure.left_out == 2 and len(figure.legend) == len(figure.table) == 6
    assert figure.table[0][0] == "FGSM-7" or "7" in figure.table[0][0]  # the strongest first
    assert figure.table[0][1][0].startswith("65.0%") and figure.header == ["0.01", "0.1"]
    assert "<svg" in figure.picture and "fgsm" not in figure.picture.partition("</desc>")[2]


def test_an_iterated_attack_that_does_worse_than_one_step_is_reported():
    trials = [trial("fgsm"), trial("pgd")]
    said = evasion.write_sentences(document(measured("fgsm", 190, 198), measured("pgd", 100, 103)), trials)
    assert any("too high" in s and "FGSM, which takes a single step" in s and "ε = 0.01" in s for s in said)
    agreeing = evasion.write_sentences(document(measured("fgsm", 100, 120), measured("pgd", 98, 200)), trials)
    assert not any("too high" in s for s in agreeing)


def test_an_ensemble_that_does_worse_than_pgd_is_reported():
    trials = [trial("pgd"), trial("auto-attack")]
    said = evasion.write_sentences(document(measured("pgd", 100, 150), measured("auto-attack", 94, 150)), trials)
    assert any("PGD, which should be the weaker attack" in s for s in said)
    agreeing = evasion.write_sentences(document(measured("pgd", 100, 150), measured("auto-attack", 99, 160)), trials)
    assert not any("weaker attack" in s for s in agreeing)


@pytest.mark.parametrize("name, warned", [("fgsm", False), ("pgd", True)])
def test_accuracy_that_grows_with_the_budget_is_reported(name, warned):
    said = evasion.write_sentences(document(measured(name, 150, 120)), [trial(name)])
    (sentence,) = [s for s in said if "higher at ε = 0.1 than at ε = 0.01" in s]
    assert (metrics.WARNING in sentence) is warned
    assert not any("higher at" in s for s in evasion.write_sentences(document(measured(name, 120, 118)), [trial(name)]))


def test_corruptions_and_certificates_are_said_with_what_they_are_of():
    from securitynet.attacks.evasion.common_corruptions import CorruptedPredictions
    from securitynet.attacks.evasion.randomized_smoothing import Certificates

    rows = np.arange(200)
    corrupted = np.zeros((2, 5, 200), dtype=np.int64)
    corrupted[1, :, :100] = 1  # the second kind costs half of the images
    noisy = CorruptedPredictions(rows, LABELS, LABELS, corrupted, ("contrast", "gaussian-noise"))
    smoothed = Certificates(rows, LABELS, LABELS, np.full(200, 0.3), np.asarray([0.0, 0.25]), 0.25)
    trials = [trial("common-corruptions", Access.BLACK_BOX), trial("randomized-smoothing", Access.BLACK_BOX)]
    groups = [
        [m.renamed(one.name) for m in output.measurements(level=0.95, fprs=(), seed=0)]
        for one, output in zip(trials, (noisy, smoothed), strict=True)
    ]
    for measurement in (m for group in groups for m in group):
        assert families.find_family_kind(measurement.name) is not None, measurement.name
    first, second = evasion.write_sentences(document(*groups), trials)
    assert "from 100.00% to 75.0%" in first and "the worst is gaussian noise, with 50%" in first
    assert "up to 0.25 in the Euclidean norm" in second and "without this vote has no such certificate" in second


def test_budgets_of_other_norms_are_in_their_own_words():
    trials = [trial("apgd-l1"), trial("patch"), trial("sparse-rs", Access.BLACK_BOX)]
    groups = [measured("apgd-l1", 50, 90, epsilons=(6, 12)), measured("patch", 40, 60), measured("sparse-rs", 30, 50)]
    said = evasion.write_sentences(document(*groups), trials)
    assert "at most 6 in the sum of all values" in said[0] and "with up to 12" in said[0]
    assert "covers at most 1% of an image by a square" in said[1]
    assert "replaces at most 1% of the pixels" in said[2]
