"""What reports say of filters of inputs: no more than the intervals."""

from types import SimpleNamespace

import pytest

from securitynet.records import Direction, Measurement
from securitynet.reports import words
from securitynet.reports.families import _filters, backdoor


class Trial:
    def __init__(self, name):
        self.name, self.status = name, "ok"


class Document:
    def __init__(self, measurements):
        self.measurements = measurements
        self.dataset = SimpleNamespace(classes=10)


def said(name, **values):
    found = [
        Measurement(name=f"{name}.{key}", value=v[0], low=v[1], high=v[2], n=200, direction=Direction.LOWER, method="m")
        for key, v in ((key.replace("_", "-"), v) for key, v in values.items())
    ]
    return " ".join(backdoor.write_sentences(Document(found), [Trial(name)]))


def test_a_filter_that_catches_and_one_that_does_not():
    base = {"false_rejection_rate": (0.05, 0.03, 0.09), "trigger_success_rate": (0.9, 0.85, 0.94)}
    good = said("backdoor.strip", **base, detection_rate=(0.95, 0.9, 0.98))
    assert "STRIP stops 5.0%" in good and "95.0%" in good and "no more often" not in good
    assert "no more often than clean ones" in said("backdoor.neo", **base, detection_rate=(0.08, 0.05, 0.2))


def test_without_a_trigger_a_rate_of_false_rejections_says_nothing_about_the_model():
    base = {"false_rejection_rate": (0.05, 0.03, 0.09)}
    assert "says nothing about whether the model has a backdoor" in said("backdoor.strip", **base)
    known = said("backdoor.strip", **base, detection_rate=(0.9, 0.8, 1.0), trigger_success_rate=(0.9, 0.8, 1.0))
    assert "says nothing" not in known


def test_suspects_are_called_triggered_only_beyond_the_interval():
    base = {"false_rejection_rate": (0.05, 0.03, 0.09), "suspects_flagged": (0.1, 0.06, 0.2)}
    assert "not distinguishable" in said("backdoor.strip", **base, suspects_excess=(0.05, -0.01, 0.1))
    assert "more often than clean" in said("backdoor.strip", **base, suspects_excess=(0.05, 0.01, 0.1))


@pytest.mark.parametrize(
    "p, words_", [(0.4, "no part of a class"), (0.01, "avoid a part"), (1e-9, "p\u00a0<\u00a01e-6")]
)
def test_clusters(p, words_):
    text = said("backdoor.activation-clustering", foreign_p_value=(p, p, p), suspect_records=(0.1, 0.08, 0.12))
    assert words_ in text


def test_every_measurement_has_its_words():
    for key in _filters.KINDS:
        assert words.find_kind(f"backdoor.strip.{key}").label == _filters.KINDS[key].label


@pytest.mark.parametrize(
    "p, words_", [(0.4, "no class whose"), (0.01, "beyond all clean images"), (1e-9, "<\u00a01e-6")]
)
def test_spectral_signatures(p, words_):
    assert words_ in said("backdoor.spectral-signatures", spectral_p_value=(p, p, p), suspect_records=(0.1, 0.08, 0.12))
