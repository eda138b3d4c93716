"""Plug-ins that are one file: registered, used, and refused in a sentence that names them."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.attacks import ATTACKS
from securitynet.datasets.registry import DATASETS
from securitynet.errors import ConfigurationError
from securitynet.plugins import load_plugin

GOOD = '''
"""A file of my own."""
from typing import ClassVar
import numpy as np
from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.records import Access, Auxiliary, ThreatModel

class OwnConfidence(ThresholdAttack):
    """My own score: the posterior of the label."""

    threat_models: ClassVar = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),)

    def score(self, signals):
        return signals.posteriors[np.arange(len(signals)), signals.labels].astype(np.float64)

def load_two_squares(request):
    """Two squares."""
    raise NotImplementedError

def _helper(num_classes):
    return None
'''


@pytest.fixture
def forget(monkeypatch):
    """Registries are as they were after the test."""
    for registry in (ATTACKS, DATASETS):
        monkeypatch.setitem(registry.__dict__, "entries", registry.entries)


def write(tmp_path, text, name="own.py"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_an_attack_and_a_dataset_are_registered_and_run(forget, tmp_path, overfitted):
    assert sorted(load_plugin(write(tmp_path, GOOD))) == ["attack membership.own-confidence", "dataset two-squares"]
    assert ATTACKS.entries["membership.own-confidence"].summary == "My own score: the posterior of the label."
    target, splits, dataset = overfitted
    from securitynet.attacks import Confidence

    own = ATTACKS.get("own-confidence")()
    data = dataset.subset(splits.members[:60]), dataset.subset(splits.non_members[:60])
    scores = [attack(target, *data).scores for attack in (own, Confidence())] if hasattr(dataset, "subset") else []
    assert not scores or np.array_equal(np.argsort(scores[0]), np.argsort(scores[1]))
    load_plugin(tmp_path / "own.py")  # twice is once


@pytest.mark.parametrize(
    "text, words",
    [
        ("x = 1 / 0", "line 1: ZeroDivisionError"),
        ("def broken(:", "line 1: SyntaxError"),
        ("x = 1", "defines no attack"),
        (GOOD.replace("OwnConfidence", "Loss"), "There is attack membership.loss already"),
        ("def load_thing(a, b):\n    pass", "load_thing must take one argument"),
        ("def net(num_classes, width):\n    pass", "must take (num_classes, channels, image_size)"),
        (
            "from securitynet.detectors.base import Detector\nclass Mine(Detector):\n    def run(self, model):\n        pass",
            "Mine.run takes (self, model)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_file(forget, tmp_path, text, words):
    with pytest.raises(ConfigurationError) as error:
        load_plugin(write(tmp_path, text, f"plug_{abs(hash(text))}.py"))
    assert words in error.value.message and "plug_" in error.value.message


def test_no_file(tmp_path):
    with pytest.raises(ConfigurationError, match="There is no plug-in"):
        load_plugin(tmp_path / "absent.py")
