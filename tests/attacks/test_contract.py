"""What every membership attack must keep, run on each of them.

Well above chance on an overfitted target; at chance, within its interval, where members and non-members are drawn
alike; the same result twice with one seed; `AccessDenied` under too little access; every query counted.
The checks are those of `securitynet.testing`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from securitynet import testing
from securitynet.attacks import ATTACKS
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.methods.context import Context
from securitynet.models.targets.target import Target
from securitynet.records import Access, Direction

OVERFITTING = {"optimizer": "adam", "schedule": "constant", "weight_decay": 0}
OVERFITTED_SHADOW = {
    "architecture": "simple-cnn",
    "recipe": {**OVERFITTING, "epochs": 60, "batch_size": 128, "learning_rate": 3e-3},
}
QUICK_SHADOWS = {
    "architecture": "simple-cnn",
    "recipe": {**OVERFITTING, "epochs": 12, "batch_size": 16, "learning_rate": 5e-3},
}
ONLINE_SHADOWS = {"shadows": {"pool": "online", "count": 4, **QUICK_SHADOWS}}
OFFLINE_SHADOWS = {"shadows": {"pool": "offline", "count": 4, **QUICK_SHADOWS}}

CONFIGURATIONS = {
    "membership.lira": ONLINE_SHADOWS,
    "membership.lira-most-exposed": {"exposed": 0.5, **ONLINE_SHADOWS},
    "membership.label-only-lira": {"queries": 5, **ONLINE_SHADOWS},
    "membership.dataset-usage": {
        "count": 6,
        "training": {**QUICK_SHADOWS, "recipe": {**QUICK_SHADOWS["recipe"], "epochs": 5}},
    },
    "membership.property-inference": {
        "pairs": 6,
        "training": {"architecture": "simple-cnn", "recipe": {"epochs": 1, "batch_size": 32}},
    },
    # Of nine images that are shifted by a pixel each, this target has memorised only one.
    "membership.range-membership": {"share": 0.12},
    "membership.rmia": ONLINE_SHADOWS,
    "membership.bavaria": ONLINE_SHADOWS,
    "membership.bavaria-offline": OFFLINE_SHADOWS,
    "membership.lira-offline": OFFLINE_SHADOWS,
    "membership.rmia-offline": OFFLINE_SHADOWS,
    "membership.reference-calibration": OFFLINE_SHADOWS,
    "membership.label-only-boundary": {"records": 60, "queries": 60},
    "membership.augmentation-agreement": {"records": 200, "repeats": 3},
    # Sixty known non-members cannot carry the default number of components and trees.
    "membership.quantile-regression": {"components": 8, "trees": 20, "folds": 2},
    # The paper's learning rate is meant for a hundred times as many records.
    "membership.ml-doctor-black-box": {"learning_rate": 1e-3, "epochs": 30, "shadow_training": OVERFITTED_SHADOW},
    "membership.ml-doctor-white-box": {"learning_rate": 1e-3, "epochs": 30, "shadow_training": OVERFITTED_SHADOW},
}
"""Settings with which an attack is quick on the tiny target, where its defaults are meant for real ones."""

ASKS_MORE = {
    "membership.rmia-offline",
    "membership.label-only-boundary",
    "membership.label-only-lira",
    "membership.range-membership",
    "membership.property-inference",
    "membership.augmentation-agreement",
}
"""Attacks that ask about more than the judged records."""

NAMES = ATTACKS.names("membership")
CASES = [(name, model) for name in NAMES for model in ATTACKS.get(name).threat_models]
IDS = [f"{name}/{model}" for name, model in CASES]
SCORED = [(name, model) for name, model in CASES if issubclass(ATTACKS.get(name).output, MembershipScores)]
"""Attacks that score records; what judges a dataset as a whole has tests of its own."""


NULL = {
    # The null case has six times as many records: these are as many steps as on the overfitted target.
    "membership.ml-doctor-black-box": {"epochs": 5},
    "membership.ml-doctor-white-box": {"epochs": 5},
}


def make(name, *, null=False):
    """An attack as it is quick; for the null case, one epoch suffices where shadow models are trained."""
    settings = {**CONFIGURATIONS.get(name, {}), **(NULL.get(name, {}) if null else {})}
    for key in ("shadows", "shadow_training"):
        if null and key in settings:
            settings[key] = {**settings[key], "recipe": {**settings[key]["recipe"], "epochs": 1}}
    return ATTACKS.get(name)(**settings)


@pytest.fixture(scope="module")
def shadow_store(tmp_path_factory):
    """Shadow models are kept under what decides them, so this file trains each once."""
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def make_cache(tmp_path_factory, shadow_store):
    """Makes cache folders in which nothing is known but shadow models."""

    def make_folder():
        path = tmp_path_factory.mktemp("cache")
        (path / "shadows").symlink_to(shadow_store, target_is_directory=True)
        return path

    return make_folder


@pytest.fixture(scope="module")
def run_once(make_cache):
    """(output, query count) of each attack on the overfitted target: run when first wanted, which the tests share."""

    @cache
    def run(name, model):
        case = testing.make_overfitted_case()
        context = Context(cache=make_cache())
        return make(name)(case.target, case.data, context, model), context.queries()

    return run


@pytest.mark.parametrize("name, model", SCORED, ids=[f"{name}/{model}" for name, model in SCORED])
def test_beats_chance_on_an_overfitted_target(name, model, run_once):
    testing.check_scores(run_once(name, model)[0])


@pytest.mark.parametrize("name, model", SCORED, ids=[f"{name}/{model}" for name, model in SCORED])
def test_is_at_chance_where_there_is_nothing_to_find(name, model, make_cache):
    testing.check_chance_on_null(make(name, null=True), testing.make_null_case(), model, cache=make_cache())


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_output_survives_being_kept(name, model, run_once):
    testing.check_output(run_once(name, model)[0])


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_its_access_suffices_for_the_same_result_whatever_was_drawn_before(name, model, run_once, make_cache):
    """A second run with an empty cache, on outputs alone if the attack promises to need no more."""
    case, folder = testing.make_overfitted_case(), make_cache()
    output, queries = run_once(name, model)
    first = output.arrays()
    backend = testing.OutputsOnly(case.target.backend)
    if model.access is Access.WHITE_BOX:
        testing.check_access(make(name), case, model)
        target = case.target
    else:
        target = Target(backend, access=Access.BLACK_BOX)
    np.random.seed(123)
    torch.manual_seed(123)
    context = Context(cache=folder)
    second = make(name)(target, case.data, context, model).arrays()
    assert first.keys() == second.keys()
    for key, array in first.items():
        if key != "notes":  # outputs alone do not give away the architecture, and notes say so
            np.testing.assert_array_equal(array, second[key], key)
    assert context.queries() == queries, "the count is the attack's own, whatever the target was sent before"
    if model.access is Access.WHITE_BOX:
        return
    assert context.queries().total == backend.calls >= context.queries().unique
    if name not in ASKS_MORE:
        assert backend.calls == len(case.data.judged), "each record is queried once"
        make(name)(target, case.data, Context(cache=folder), model)
        assert backend.calls == len(case.data.judged), "the second run finds the outputs in the cache"


@pytest.mark.parametrize("name", NAMES)
def test_refuses_threat_models_that_it_does_not_serve(name):
    testing.check_foreign_threat_models(make(name), testing.make_overfitted_case())


@pytest.mark.parametrize("name", NAMES)
def test_measures_are_good_for_the_owner_when_low(name, run_once):
    output, _ = run_once(name, ATTACKS.get(name).threat_models[0])
    directions = {m.direction for m in output.measurements(level=0.95, fprs=(0.1, 0.01), seed=0)}
    assert directions == {Direction.LOWER}
