"""The report's sentences on Neural Cleanse: the verdict first; no model is called usual when something is unusual."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from securitynet.assessments import assess as assessment
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.result import to_document
from securitynet.detectors._neural_cleanse.triggers import Triggers
from securitynet.records import Direction, Measurement
from securitynet.reports import words
from securitynet.reports.families import backdoor
from securitynet.reports.families.backdoor import describe_smallest_trigger
from securitynet.reports.grades import grade_families
from securitynet.reports.next_steps import propose_step, write_command
from securitynet.results.store import TrialStore

CLEAN = [89.3, 79.0, 80.0, 93.6, 102.8, 89.8, 101.3, 102.1, 84.7, 101.3]


def measure(norms, success=0.97, settled=True):
    """Measurements of made-up norms of images of 32×32 pixels; all triggers work on the same share of fresh images."""
    count = len(norms)
    norms = np.asarray(norms, np.float64)
    blank = np.zeros((count, 3, 32, 32), np.uint8)
    output = Triggers(
        labels=np.arange(count),
        norms=norms,
        repeats=norms[None],
        success=np.ones((1, count)),
        epochs=np.ones((1, count), np.int64),
        sampled=np.ones(count, bool),
        population=count,
        verified=np.ones(count, bool),
        pictured=np.argsort(norms),
        masks=blank[:, 0],
        patterns=blank,
        class_means=blank,
        names=("airplane", "automobile", *(f"class {number}" for number in range(2, count))),
        reference=np.empty((0, count)),
        planted_mask=np.zeros((0, 0), np.uint8),
        fresh_hits=np.full((count, count), round(100 * success)),
        fresh_totals=np.full(count, 100),
        settled=np.full((1, count), settled),
    )
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def test_a_backdoor_that_is_found_is_named():
    measured = measure([152, 24.2, 79, 100, 110, 95, 120, 130, 88, 141])
    sentences = describe_smallest_trigger(measured)
    assert sentences[0].startswith("Backdoor found: label 1 (automobile) can be reached")
    assert "2.4% of the image; 0.22 of the others' median norm; works on 97% of fresh images" in sentences[0]
    assert "flags a label" in sentences[1]
    assert measured["suspect-label"].value == 1


def test_an_outlier_whose_trigger_fails_on_fresh_images_is_suspicious():
    sentence = describe_smallest_trigger(measure([152, 24.2, 79, 100, 110, 95, 120, 130, 88, 141], 0.3))[0]
    assert sentence.startswith("Suspicious: label 1 (automobile)")
    assert "but its trigger often fails on fresh images" in sentence


@pytest.mark.parametrize("norms", [CLEAN, [152, 24.2, 79, 100, 110, 95, 120, 130, 88, 141]], ids=["clean", "outlier"])
def test_a_search_that_was_too_short_says_what_to_run(norms):
    sentence = describe_smallest_trigger(measure(norms, settled=False))[0]
    assert sentence.startswith("Undecided: the search was too short. The norms of 100% of the labels had not settled")
    assert "neural-cleanse.preset=original" in sentence
    assert "median" not in sentence


def test_a_clean_model_hears_what_would_be_missed():
    sentence = describe_smallest_trigger(measure(CLEAN))[0]
    assert sentence.startswith("Nothing found (p\u00a0=\u00a00.")
    assert "would miss a backdoor whose trigger needs more than 0." in sentence
    assert "does not prove that there is no backdoor" in sentence


@pytest.mark.parametrize(
    "norms",
    [
        [31.8, 72.4, 55.3, 89.0, 78.2, 75.7, 85.0, 47.3, 86.4, 53.9],
        [30, 24.2, 79, 30, 110, 60, 45, 130, 88, 141],
        [30.0, np.inf, np.inf, 90.0],
    ],
    ids=["far below", "spread", "hardly any"],
)
def test_a_norm_far_below_the_median_is_never_called_usual(norms):
    sentence = describe_smallest_trigger(measure(norms))[0]
    assert sentence.startswith("Undecided")
    assert "usual" not in sentence


def test_results_of_earlier_versions_have_sentences_too():
    def old(value, low, high):
        return Measurement(
            name="p-value", value=value, low=low, high=high, n=10, direction=Direction.HIGHER, method="m"
        )

    assert "a sign of a backdoor" in describe_smallest_trigger({"p-value": old(0.01, 0.0, 0.02)})[0]
    clear = describe_smallest_trigger({"p-value": old(0.149, 0.147, 0.151)})[0]
    assert "names no class" in clear
    assert "usual" not in clear


def test_every_measurement_has_a_label_of_its_own():
    for name in measure(CLEAN):
        assert words.find_kind(f"backdoor.neural-cleanse.{name}").label == backdoor.KINDS[name].label


def test_a_scan_says_its_verdict_and_how_often_it_accuses_clean_models():
    def verdict(rank, note):
        return Measurement(
            name="verdict", value=rank, low=rank, high=rank, n=1, direction=Direction.LOWER, method="m", note=note
        )

    said = backdoor.describe_scan("Largest margins (MM-BD)", {"verdict": verdict(2, "Suspicious: class 3 stands out.")})
    assert said[0] == "Largest margins (MM-BD): suspicious: class 3 stands out."
    assert "one clean model in 20" in said[1]
    assert backdoor.describe_scan("x", {"verdict": verdict(0, "Nothing found: none.")}) == ["x: nothing found: none."]
    assert backdoor.describe_scan("x", {}) == []


@pytest.fixture(scope="module")
def scanned(subject, folder):
    """The document of an assessment with two scans of the model."""
    config = AssessConfig(
        model="arch:simple-cnn",
        dataset="digits",
        cache=folder / "scans" / "cache",
        attacks=("none",),
        detectors=("mm-bd", "last-layer"),
        configure=("mm-bd.starts=2", "mm-bd.steps=3"),
    )
    return to_document(assessment.run_assessment(config, subject, TrialStore(folder / "scans")))


def replace_scan(document, name, *, rank, p_value, label):
    """The document with another outcome of one scan."""
    values = {"verdict": rank, "p-value": p_value, "suspect-label": label}
    start = f"backdoor.{name}."
    measurements = [
        m.model_copy(update=dict.fromkeys(("value", "low", "high"), float(values[m.name.removeprefix(start)])))
        if m.name.startswith(start) and m.name.removeprefix(start) in values
        else m
        for m in document.measurements
        if m.name != "backdoor.verdict"
    ]
    return document.model_copy(update={"measurements": tuple(measurements)})


def describe(document):
    """(the first sentence on backdoors, the finding of the family)."""
    trials = [trial for trial in document.trials if trial.name.startswith("backdoor.")]
    finding = next(f for f in grade_families(document) if f.family == "backdoor")
    return backdoor.write_sentences(document, trials)[0], finding


def test_the_joint_verdict_comes_first_and_is_in_the_result(scanned):
    stored = next(m for m in scanned.measurements if m.name == "backdoor.verdict")
    sentence, finding = describe(scanned)
    assert sentence == stored.note
    assert (stored.n, finding.measurement) == (2, stored)


def test_what_one_scan_accuses_is_not_cleared_by_the_others(scanned):
    clean = replace_scan(scanned, "last-layer", rank=0, p_value=0.7, label=2)
    accused = replace_scan(clean, "mm-bd", rank=2, p_value=0.004, label=3)
    sentence, finding = describe(accused)
    assert sentence.startswith("Suspicious: MM-BD accuses class 3 with p\u00a0=\u00a00.008")
    assert (finding.grade, finding.meaning) == ("moderate", sentence)
    weak = replace_scan(clean, "mm-bd", rank=2, p_value=0.04, label=3)
    sentence, finding = describe(weak)
    assert sentence.startswith("Undecided: MM-BD accuses class 3")
    assert (finding.grade, finding.meaning) == ("undecided", sentence)
    nothing = replace_scan(clean, "mm-bd", rank=0, p_value=0.4, label=3)
    assert describe(nothing)[1].grade == "none shown"


def test_after_a_search_that_was_too_short_comes_one_with_the_default_settings(scanned):
    short = Measurement(
        name="backdoor.neural-cleanse.settled",
        value=0.1,
        low=0.0,
        high=0.4,
        n=10,
        direction=Direction.HIGHER,
        method="m",
    )
    chosen = {**scanned.settings, "detectors": ["mm-bd", "neural-cleanse"]}
    chosen["configure"] = ["mm-bd.starts=2", "neural-cleanse.epochs=12"]
    document = scanned.model_copy(update={"measurements": (*scanned.measurements, short), "settings": chosen})
    finding = next(found for found in grade_families(document) if found.family == "backdoor")
    step = propose_step(document, dataclasses.replace(finding, grade="undecided"))
    assert "long enough" in step.what
    assert "neural-cleanse" in step.command and "mm-bd.starts=2" in step.command and "epochs" not in step.command
    settled = document.model_copy(update={"measurements": scanned.measurements})
    assert "epochs=12" in write_command(settled, None)
