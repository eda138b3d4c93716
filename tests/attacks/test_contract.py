"""What every membership attack must keep, run on each of them.

Well above chance on an overfitted target; at chance, within its interval, where members and non-members are drawn
alike; the same result twice with one seed; `AccessDenied` under too little access; an honest bill of queries.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from securitynet.attacks import ATTACKS
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

OVERFITTING = {"optimizer": "adam", "schedule": "constant", "weight_decay": 0}
OVERFITTED_SHADOW = {
    "architecture": "simple-cnn",
    "recipe": {**OVERFITTING, "epochs": 150, "batch_size": 128, "learning_rate": 3e-3},
}
QUICK_SHADOWS = {
    "architecture": "simple-cnn",
    "recipe": {**OVERFITTING, "epochs": 12, "batch_size": 16, "learning_rate": 5e-3},
}
ONLINE_SHADOWS = {"shadows": {"pool": "online", "count": 6, **QUICK_SHADOWS}}
OFFLINE_SHADOWS = {"shadows": {"pool": "offline", "count": 6, **QUICK_SHADOWS}}

CONFIGURATIONS = {
    "membership.lira": ONLINE_SHADOWS,
    "membership.rmia": ONLINE_SHADOWS,
    "membership.lira-offline": OFFLINE_SHADOWS,
    "membership.rmia-offline": OFFLINE_SHADOWS,
    "membership.reference-calibration": OFFLINE_SHADOWS,
    "membership.label-only-boundary": {"records": 60, "queries": 60},
    "membership.augmentation-agreement": {"records": 200, "repeats": 3},
    # The paper's learning rate is meant for a hundred times as many records.
    "membership.ml-doctor-black-box": {"learning_rate": 1e-3, "epochs": 30, "shadow_training": OVERFITTED_SHADOW},
    "membership.ml-doctor-white-box": {"learning_rate": 1e-3, "epochs": 30, "shadow_training": OVERFITTED_SHADOW},
}
"""Settings with which an attack is quick on the tiny target, where its defaults are meant for real ones."""

ASKS_MORE = {"membership.rmia-offline", "membership.label-only-boundary", "membership.augmentation-agreement"}
"""Attacks that ask about more than the judged records."""

NAMES = ATTACKS.names("membership")
CASES = [(name, model) for name in NAMES for model in ATTACKS.get(name).threat_models]
IDS = [f"{name}/{model}" for name, model in CASES]


class Sealed(Backend):
    """Answers only: what an endpoint shows of a network."""

    def __init__(self, inner):
        self.inner, self.reference, self.checksum = inner, "sealed", inner.checksum
        self.calls = 0

    def outputs(self, inputs):
        self.calls += len(inputs)
        return self.inner.outputs(inputs)


def make(name, **recipe):
    settings = dict(CONFIGURATIONS.get(name, {}))
    if "shadows" in settings:
        settings["shadows"] = {**settings["shadows"], "recipe": {**settings["shadows"]["recipe"], **recipe}}
    return ATTACKS.get(name)(**settings)


@pytest.fixture(scope="module")
def shadow_store(tmp_path_factory):
    """Shadow models are kept under what decides them, so this file trains each once."""
    return tmp_path_factory.mktemp("contract")


@pytest.fixture
def fresh(tmp_path, shadow_store):
    """Makes cache folders in which nothing is known but shadow models."""

    def folder(name="cache"):
        path = tmp_path / name
        path.mkdir()
        (path / "shadows").symlink_to(shadow_store, target_is_directory=True)
        return path

    return folder


@pytest.fixture(scope="module")
def overfitted_data(overfitted):
    """The overfitted target and its records, with shadow parts beside them."""
    target, splits, dataset = overfitted
    rest = np.setdiff1d(np.arange(len(dataset)), np.concatenate([splits.members, splits.non_members]))
    order = np.random.default_rng(2).permutation(rest).astype(np.int64)
    # Every second member has a wrong label; the adversary shall know members of both kinds.
    known = np.arange(len(splits.members)) % 4 < 2
    splits = dataclasses.replace(
        splits,
        known_members=splits.members[known],
        known_non_members=splits.non_members[known],
        shadow_train=np.sort(order[:120]),
        shadow_test=np.sort(order[120:240]),
    )
    # Half of the labels to train shadow models on are wrong, as half of the target's are: else they were unlike it.
    labels, wrong = dataset.labels.copy(), splits.shadow_train[::2]
    labels[wrong] = (labels[wrong] + 1 + np.random.default_rng(3).integers(0, 9, len(wrong))) % 10
    return target, TrialData(dataclasses.replace(dataset, labels=labels), splits)


@pytest.fixture(scope="module")
def null_data(overfitted, unseen):
    """The same target, with records in both groups that it never saw: the truth is one half."""
    target, _, dataset = overfitted
    return target, TrialData(dataset, unseen(seed=1))


def measures(name, model, target, data, cache, seed=0, **recipe):
    output = make(name, **recipe)(target, data, Context(seed=seed, cache=cache), model)
    return {m.name: m for m in output.measurements(level=0.95, fprs=(0.1, 0.01), seed=seed)}, output


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_beats_chance_on_an_overfitted_target(name, model, overfitted_data, fresh):
    found, _ = measures(name, model, *overfitted_data, fresh())
    assert found["auc"].low > 0.6
    assert found["balanced-accuracy"].low > 0.55


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_is_at_chance_where_there_is_nothing_to_find(name, model, null_data, fresh):
    found, _ = measures(name, model, *null_data, fresh(), epochs=1)  # where shadow models are trained, that suffices
    for measure in (found["auc"], found["balanced-accuracy"]):
        half = (measure.high - measure.low) / 2
        assert abs(measure.value - 0.5) < 1.6 * half  # 1.6 half-widths of a 95% interval: about 3 standard errors


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_same_seed_same_result_whatever_was_drawn_before(name, model, overfitted_data, fresh):
    _, first = measures(name, model, *overfitted_data, fresh("a"))
    np.random.seed(123)
    torch.manual_seed(123)
    _, second = measures(name, model, *overfitted_data, fresh("b"))
    for key, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[key])


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_output_survives_being_kept(name, model, overfitted_data, fresh):
    found, output = measures(name, model, *overfitted_data, fresh())
    again = type(output).from_arrays(output.arrays())
    assert {m.name: m for m in again.measurements(level=0.95, fprs=(0.1, 0.01), seed=0)} == found


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_works_with_no_more_than_its_access(name, model, overfitted_data, fresh):
    target, data = overfitted_data
    sealed = Sealed(target.backend)
    context = Context(cache=fresh())
    if model.access is Access.WHITE_BOX:
        with pytest.raises(AccessDenied):
            make(name)(Target(sealed, access=Access.BLACK_BOX), data, context, model)
        return
    make(name)(Target(sealed, access=Access.BLACK_BOX), data, context, model)
    assert context.queries().total == sealed.calls, "all that is asked is on the bill"
    if name not in ASKS_MORE:
        assert sealed.calls == len(data.judged), "each record is asked exactly once"
        make(name)(Target(sealed, access=Access.BLACK_BOX), data, Context(cache=context.cache), model)
        assert sealed.calls == len(data.judged), "a second attack asks nothing: signals are cached"


@pytest.mark.parametrize("name", NAMES)
def test_refuses_a_threat_model_that_it_does_not_serve(name, overfitted_data, fresh):
    target, data = overfitted_data
    attack = make(name)
    foreign = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.OUT_OF_DISTRIBUTION)
    if foreign not in attack.threat_models:
        with pytest.raises(ConfigurationError, match="does not serve"):
            attack(target, data, Context(cache=fresh()), foreign)


@pytest.mark.parametrize("name", NAMES)
def test_measures_are_good_for_the_owner_when_low(name, overfitted_data, fresh):
    found, _ = measures(name, ATTACKS.get(name).threat_models[0], *overfitted_data, fresh())
    assert {m.direction.value for m in found.values()} == {"lower"}
