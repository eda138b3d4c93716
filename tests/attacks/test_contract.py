"""What every membership attack must keep, run on each of them.

Well above chance on an overfitted target; at chance, within its interval, where members and non-members are drawn
alike; the same result twice with one seed; `AccessDenied` under too little access; every query counted.
The checks are those of `securitynet.testing`.
"""

from __future__ import annotations

import pytest

from securitynet import testing
from securitynet.attacks import ATTACKS
from securitynet.attacks.membership.base import MembershipScores
from securitynet.methods.context import Context
from securitynet.models.targets.target import Target
from securitynet.records import Access, Direction

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
    "membership.lira-most-exposed": {"exposed": 0.5, **ONLINE_SHADOWS},
    "membership.label-only-lira": ONLINE_SHADOWS,
    "membership.dataset-usage": {"count": 6, "training": QUICK_SHADOWS},
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
    "membership.quantile-regression": {"components": 8, "trees": 30},
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


@pytest.mark.parametrize("name, model", SCORED, ids=[f"{name}/{model}" for name, model in SCORED])
def test_beats_chance_on_an_overfitted_target(name, model, fresh):
    testing.check_beats_chance(make(name), testing.make_overfitted_case(), model, cache=fresh())


@pytest.mark.parametrize("name, model", SCORED, ids=[f"{name}/{model}" for name, model in SCORED])
def test_is_at_chance_where_there_is_nothing_to_find(name, model, fresh):
    attack = make(name, epochs=1)  # where shadow models are trained, that suffices
    testing.check_chance_on_null(attack, testing.make_null_case(), model, cache=fresh())


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_same_seed_same_result_whatever_was_drawn_before(name, model, fresh):
    caches = (fresh("a"), fresh("b"))
    testing.check_reproducible(make(name), testing.make_overfitted_case(), model, caches=caches)


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_output_survives_being_kept(name, model, fresh):
    case = testing.make_overfitted_case()
    testing.check_output(make(name)(case.target, case.data, Context(cache=fresh()), model))


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_works_with_no_more_than_its_access(name, model, fresh):
    testing.check_access(make(name), testing.make_overfitted_case(), model, cache=fresh())


@pytest.mark.parametrize(
    "name, model", [(n, m) for n, m in CASES if m.access is Access.BLACK_BOX and n not in ASKS_MORE]
)
def test_each_record_is_asked_about_once(name, model, fresh):
    case, cache = testing.make_overfitted_case(), fresh()
    backend = testing.OutputsOnly(case.target.backend)
    for _ in range(2):  # the second run finds the outputs in the cache
        make(name)(Target(backend, access=Access.BLACK_BOX), case.data, Context(cache=cache), model)
        assert backend.calls == len(case.data.judged)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_threat_models_that_it_does_not_serve(name):
    testing.check_foreign_threat_models(make(name), testing.make_overfitted_case())


@pytest.mark.parametrize("name", NAMES)
def test_measures_are_good_for_the_owner_when_low(name, fresh):
    case = testing.make_overfitted_case()
    output = make(name)(case.target, case.data, Context(cache=fresh()), ATTACKS.get(name).threat_models[0])
    directions = {m.direction for m in output.measurements(level=0.95, fprs=(0.1, 0.01), seed=0)}
    assert directions == {Direction.LOWER}
