"""What every stealing attack must keep."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from securitynet.attacks import ATTACKS
from securitynet.errors import AccessDenied, ConfigurationError, QueryBudgetExceeded
from securitynet.methods.context import Context
from securitynet.methods.output import Output
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel
from stealing_cases import FAST, Dice, Sealed, context, measured

NAMES = ATTACKS.names("stealing")
CASES = [(name, model) for name in NAMES for model in ATTACKS.get(name).threat_models]
IDS = [f"{name}/{model}" for name, model in CASES]
ONE_EACH = [(name, ATTACKS.get(name).threat_models[0]) for name in NAMES]

SETTINGS = {
    "stealing.uncertainty": {"first": 30, "selection_epochs": 4},
    "stealing.k-center": {"first": 30, "selection_epochs": 4},
    "stealing.knockoff": {"first": 30, "selection_epochs": 4},
    "stealing.data-free": {"batch": 64, "student_steps": 3, "generator_steps": 1},
}
BUDGET = {"stealing.data-free": 480}


def make(name, **settings):
    given = {**FAST, "budgets": BUDGET.get(name, 120), **SETTINGS.get(name, {}), **settings}
    return ATTACKS.get(name)(**given)


@dataclass(frozen=True)
class Theft:
    """An attack that was run with its whole budget on a target of its own."""

    output: Output
    target: Target
    context: Context
    cache: Path


@pytest.fixture(scope="module")
def steal(digit_target, all_data, tmp_path_factory):
    """Each attack under each threat model: run when it is first wanted, and shared by the tests."""

    @cache
    def steal_once(name, model):
        target = Target(Sealed(digit_target.backend), preprocessing=digit_target.preprocessing)
        folder = tmp_path_factory.mktemp("theft")
        settings = context(folder)
        return Theft(make(name)(target, all_data, settings, model), target, settings, folder)

    return steal_once


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_steals_and_its_bill_is_its_budget(name, model, steal, all_data):
    theft = steal(name, model)
    found = measured(theft.output)
    assert found["agreement"].low > 1.5 * found["constant-agreement"].high
    budget = BUDGET.get(name, 120)
    queries, counter = theft.context.queries(), theft.target.query_counter
    assert queries.total == queries.unique == budget
    assert counter.total == counter.unique == budget
    judged = len(all_data.splits.non_members)
    assert theft.target.backend.calls == budget + judged, "the auditor asks about the judged records once, and no more"


@pytest.mark.parametrize("name, model", ONE_EACH, ids=NAMES)
def test_a_second_run_asks_nothing(name, model, steal, all_data):
    theft = steal(name, model)
    calls, again = theft.target.backend.calls, context(theft.cache)
    make(name)(theft.target, all_data, again, model)
    assert theft.target.backend.calls == calls
    assert again.queries().unique == BUDGET.get(name, 120), "what was paid for earlier is on the bill all the same"


@pytest.mark.parametrize("name, model", ONE_EACH, ids=NAMES)
def test_a_smaller_budget_is_a_run_of_its_own_on_the_first_queries(name, model, steal, sealed, all_data, tmp_path):
    theft, large = steal(name, model), BUDGET.get(name, 120)
    # Both runs send the same batches: the last digits of outputs depend on their sizes on some processors.
    small = large // 2
    # In the cache of the larger run, so that only the smaller one is left to do.
    curve = make(name, budgets=(small, large))(theft.target, all_data, context(theft.cache), model)
    alone = make(name, budgets=small)(sealed, all_data, context(tmp_path), model)
    assert curve.budgets.tolist() == [small, large]
    np.testing.assert_array_equal(curve.surrogate[1], theft.output.surrogate[0])
    np.testing.assert_array_equal(curve.surrogate[0], alone.surrogate[0])
    np.testing.assert_array_equal(curve.confidence[0], alone.confidence[0])
    if model.auxiliary is not Auxiliary.NONE:  # made-up images are another dataset where there are more of them
        assert curve.saved[0] == alone.saved[0] != curve.saved[1]


@pytest.mark.parametrize("name, model", ONE_EACH, ids=NAMES)
def test_same_seed_same_result_whatever_was_drawn_before(name, model, steal, sealed, all_data, tmp_path):
    first = steal(name, model).output
    np.random.seed(1)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    second = make(name)(sealed, all_data, context(tmp_path), model)
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state is left as it was"
    for key, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[key])
    again = type(first).from_arrays(first.arrays())
    assert measured(again) == measured(first)


@pytest.mark.parametrize("name, model", ONE_EACH, ids=NAMES)
def test_finds_nothing_where_answers_mean_nothing(name, model, all_data):
    output = make(name, budgets=BUDGET.get(name, 120) // 3)(Target(Dice()), all_data, context(), model)
    found = measured(output)
    # Dice fall on ten sides; a surrogate can agree with those that it did not see by chance alone.
    assert found["agreement"].low < 0.13
    assert found["agreement"].high > 0.07


@pytest.mark.parametrize("meaningful", [True, False], ids=["target", "dice"])
def test_hard_labels_without_data_suffice_to_steal(meaningful, sealed, all_data):
    name = "stealing.data-free"
    model, target = ATTACKS.get(name).threat_models[0], sealed if meaningful else Target(Dice())
    attack = make(name, interface="labels", budgets=360 if meaningful else 100)
    found = measured(attack(target, all_data, context(), model))
    if meaningful:
        assert found["agreement"].low > 1.5 * found["constant-agreement"].high
    else:
        assert found["agreement"].low < 0.13
        assert found["agreement"].high > 0.07


@pytest.mark.parametrize("name, model", ONE_EACH, ids=NAMES)
def test_a_cap_on_queries_is_not_overrun(name, model, digit_target, all_data):
    ledger = QueryCounter(cap=100)
    capped = Target(Sealed(digit_target.backend), preprocessing=digit_target.preprocessing, query_counter=ledger)
    with pytest.raises(QueryBudgetExceeded):
        make(name)(capped, all_data, context(), model)
    assert ledger.unique <= 100


@pytest.mark.parametrize("name", NAMES)
def test_black_box_access_is_all_it_gets(name, digit_target, all_data):
    attack = make(name)
    assert all(model.access is Access.BLACK_BOX for model in attack.threat_models)
    foreign = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL)
    with pytest.raises(ConfigurationError, match="does not serve"):
        attack(digit_target, all_data, context(), foreign)
    seen = []

    class Spy(type(attack)):
        def query_images(self, target, data, context):
            seen.append(target)
            with pytest.raises(AccessDenied):
                _ = target.module
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Spy(**attack.model_dump())(digit_target, all_data, context(), attack.threat_models[0])
    assert seen


@pytest.mark.parametrize("name", NAMES)
def test_is_left_out_of_the_standard_assessment(name):
    assert ATTACKS.get(name).costs is not None
