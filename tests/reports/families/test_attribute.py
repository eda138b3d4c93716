"""What reports say of attribute inference: by the interval, best attack of each attribute, many attributes counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from securitynet.assessments import assess as assessment
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.result import to_document
from securitynet.datasets.base import Attribute
from securitynet.records import Direction, Measurement
from securitynet.reports import verdict, words
from securitynet.reports.build import render_report
from securitynet.reports.families.attribute import describe_gain, write_sentences
from securitynet.results.store import TrialStore


@pytest.fixture(scope="module")
def documents(subject, digits, folder):
    generator = np.random.default_rng(0)
    chance = Attribute(generator.integers(0, 2, len(digits)), ("heads", "tails"))
    dataset = dataclasses.replace(subject.dataset, attributes={**digits.attributes, "coin": chance})
    rest = np.setdiff1d(np.arange(len(dataset)), np.union1d(subject.splits.members, subject.splits.non_members))
    splits = dataclasses.replace(
        subject.splits, non_members=rest[700:], known_non_members=rest[700:720], shadow_train=rest[:690]
    )
    found = dataclasses.replace(subject, dataset=dataset, splits=splits)
    config = AssessConfig(
        model="arch:simple-cnn",
        dataset="digits",
        cache=folder / "cache",
        attacks=("attribute",),
        detectors=("none",),
        configure=("embedding-mlp.epochs=12",),
    )
    done = assessment.run_assessment(config, found, TrialStore(folder / "attributes"))
    return to_document(done), done


def test_sentences_and_labels(documents):
    document, done = documents
    said = verdict.write_verdict(document)
    assert len(said) == 3
    best = [sentence for sentence in said if "more than the class reveals" in sentence]
    assert any("“slant”" in sentence for sentence in best)
    (coin,) = [sentence for sentence in said if "“coin”" in sentence]
    assert "not distinguishable from no gain" in coin
    kind = words.find_kind("attribute.embedding-mlp@shadow.slant.gain")
    assert (kind.label, kind.unit, kind.chance) == ("slant: gain over class and majority", "points", 0.0)
    gains = [done[f"attribute.embedding-mlp@{known}.slant.gain"] for known in ("partial", "shadow")]
    shown = [words.write_numbers(one).value for one in gains]
    assert any(value in sentence for value in shown for sentence in best)
    # Slant shows in the pixels: random weights find it as well, and the model is not blamed.
    assert all("Random weights of the same architecture give a gain of" in sentence for sentence in said)
    (slant,) = [sentence for sentence in said if "“slant”" in sentence]
    assert "it is not shown that training this network made the attribute easier to infer" in slant


def test_the_page_shows_them(documents):
    document, found = documents
    page = render_report([document], [found])
    assert "slant: gain over class and majority" in page


def gain(name, low, value, high):
    shared = {"level": 0.95, "n": 100, "direction": Direction.LOWER, "method": "m"}
    return Measurement(name=name, low=low, value=value, high=high, **shared)


def test_words_follow_the_interval():
    assert describe_gain(gain("g", 0.01, 0.1, 0.2)) == "more than the class reveals"
    assert describe_gain(gain("g", -0.01, 0.1, 0.2)) == "not distinguishable from no gain"
    assert describe_gain(gain("g", -0.3, -0.2, -0.1)).startswith("so the attack does worse")


def test_many_attributes_are_counted(documents):
    document, _ = documents
    trial = next(trial for trial in document.trials if trial.status == "ok")
    made = []
    for number in range(7):
        start = f"{trial.name}.a{number}"
        low = 0.01 if number < 5 else -0.01
        made += [gain(f"{start}.gain", low, 0.05, 0.1)]
        made += [gain(f"{start}.{name}", 0.4, 0.5, 0.6) for name in ("accuracy", "baseline-accuracy")]
    said = write_sentences(document.model_copy(update={"measurements": tuple(made)}), [trial])
    assert len(said) == 5
    assert said[-1] == "Of 3 further attributes, 1 is inferred better than from the class alone."
    assert write_sentences(document.model_copy(update={"measurements": ()}), [trial]) == []
