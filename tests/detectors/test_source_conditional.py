"""The search from class to class: its contract, what it searches, and its verdicts on constructed norms."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.datasets import splits
from securitynet.detectors.source_conditional import PairNorms, SourceConditional
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.testing import check_detector

NAMES = tuple("abcdefgh")


def measure(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def draw_norms(seed=0, count=8):
    random = np.random.default_rng(seed)
    alike = random.normal(0, 0.4, (count, count))
    norms = 30 * np.exp(alike + alike.T + random.normal(0, 0.5, count) + random.normal(0, 0.1, (count, count)))
    np.fill_diagonal(norms, np.nan)
    return norms


def make(norms):
    return PairNorms(np.arange(len(norms)), norms, 784.0, 0, NAMES[: len(norms)])


def test_contract():
    check_detector(SourceConditional(images=4, epochs=1))


def test_triggers_are_searched_for_every_pair_of_some_classes(digits, innocent):

    data = TrialData(digits, splits.make("public", digits))
    detector = SourceConditional(images=8, epochs=12, batch_size=8, classes=5)
    output = detector(innocent, data, Context(seed=3), detector.threat_models[0])
    assert output.norms.shape == (5, 5)
    assert np.isnan(np.diag(output.norms)).all()
    off = output.norms[~np.eye(5, dtype=bool)]
    works = off[np.isfinite(off)]
    assert len(works) >= 15
    assert ((works > 0) & (works < 64)).all()


def test_a_clean_model_is_not_accused_and_the_sentence_says_what_was_not_looked_for():
    values = measure(make(draw_norms()))
    assert values["verdict"].value == 0
    assert "all classes to one" in values["verdict"].note


def test_a_source_specific_backdoor_is_named():
    norms = draw_norms()
    norms[5, 2] /= 6
    values = measure(make(norms))
    assert values["verdict"].value == 2
    assert "class f" in values["verdict"].note
    assert "class c" in values["verdict"].note
    assert values["pair-ratio"].value == pytest.approx(6 ** -(1 - 2 / 8), rel=0.4)


def test_an_all_to_all_backdoor_is_named():
    norms = draw_norms()
    norms[np.arange(8), (np.arange(8) + 1) % 8] /= 4
    values = measure(make(norms))
    assert values["verdict"].value == 2
    assert "a to b, b to c, c to d, d to e" in values["verdict"].note


def test_pairs_without_a_trigger_count_as_the_whole_image():
    norms = draw_norms()
    norms[0, 1:4] = np.inf
    values = measure(make(norms))
    assert values["converged"].value == pytest.approx(53 / 56)
    nothing = np.full((8, 8), np.inf)
    assert measure(make(nothing))["verdict"].value == 1
    assert measure(make(draw_norms(count=4)))["verdict"].value == 1


def test_too_few_known_images_are_refused(digits, innocent):
    parts = splits.make("public", digits)
    few = splits.Splits("few", parts.members, parts.non_members, *(np.empty(0, np.int64),) * 4)
    detector = SourceConditional()
    with pytest.raises(ConfigurationError, match="5 classes"):
        detector(innocent, TrialData(digits, few), Context(), detector.threat_models[0])
