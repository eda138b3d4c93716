"""What every registered attack must keep, run on each of them.

Well above chance on an overfitted target; at chance, within its interval, where members and non-members are drawn
alike; the same result twice with one seed; `AccessDenied` under too little access; an honest bill of queries.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from securitynet.attacks import ATTACKS
from securitynet.attacks.base import AttackData, Context
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.models.backends.base import Backend
from securitynet.models.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

CASES = [(name, model) for name in ATTACKS for model in ATTACKS.get(name).threat_models]
IDS = [f"{name}/{model}" for name, model in CASES]


class Sealed(Backend):
    """Answers only: what an endpoint shows of a network."""

    def __init__(self, inner):
        self.inner, self.reference, self.checksum = inner, "sealed", inner.checksum
        self.calls = 0

    def outputs(self, inputs):
        self.calls += len(inputs)
        return self.inner.outputs(inputs)


def measures(name, model, target, data, tmp_path, seed=0):
    output = ATTACKS.get(name)()(target, data, Context(seed=seed, cache=tmp_path), model)
    return {m.name: m for m in output.measurements(level=0.95, fprs=(0.1, 0.01), seed=seed)}, output


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_beats_chance_on_an_overfitted_target(name, model, overfitted, tmp_path):
    target, splits, dataset = overfitted
    found, _ = measures(name, model, target, AttackData(dataset, splits), tmp_path)
    assert found["auc"].low > 0.6
    assert found["balanced-accuracy"].low > 0.55


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_is_at_chance_where_there_is_nothing_to_find(name, model, overfitted, tmp_path):
    # Both groups are records that the target never saw, so the truth is one half.
    target, splits, dataset = overfitted
    rest = np.setdiff1d(np.arange(len(dataset)), np.concatenate([splits.members, splits.non_members]))
    order = np.random.default_rng(1).permutation(rest).astype(np.int64)
    members, non_members = np.sort(order[:700]), np.sort(order[700:1400])
    null = dataclasses.replace(
        splits,
        members=members,
        non_members=non_members,
        known_members=members[::2],
        known_non_members=non_members[::2],
    )
    found, _ = measures(name, model, target, AttackData(dataset, null), tmp_path)
    for measure in (found["auc"], found["balanced-accuracy"]):
        half = (measure.high - measure.low) / 2
        assert abs(measure.value - 0.5) < 1.6 * half  # 1.6 half-widths of a 95% interval: about 3 standard errors


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_same_seed_same_result_whatever_was_drawn_before(name, model, overfitted, tmp_path):
    target, splits, dataset = overfitted
    data = AttackData(dataset, splits)
    _, first = measures(name, model, target, data, tmp_path / "a")
    np.random.seed(123)
    torch.manual_seed(123)
    _, second = measures(name, model, target, data, tmp_path / "b")
    for key, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[key])


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_output_survives_being_kept(name, model, overfitted, tmp_path):
    target, splits, dataset = overfitted
    found, output = measures(name, model, target, AttackData(dataset, splits), tmp_path)
    again = type(output).from_arrays(output.arrays())
    assert {m.name: m for m in again.measurements(level=0.95, fprs=(0.1, 0.01), seed=0)} == found


@pytest.mark.parametrize("name, model", CASES, ids=IDS)
def test_works_with_no_more_than_its_access(name, model, overfitted, tmp_path):
    target, splits, dataset = overfitted
    data, sealed = AttackData(dataset, splits), Sealed(target.backend)
    context = Context(cache=tmp_path)
    if model.access is Access.WHITE_BOX:
        with pytest.raises(AccessDenied):
            ATTACKS.get(name)()(Target(sealed, access=Access.BLACK_BOX), data, context, model)
    else:
        ATTACKS.get(name)()(Target(sealed, access=Access.BLACK_BOX), data, context, model)
        judged = len(splits.members) + len(splits.non_members)
        assert sealed.calls == judged, "each record is asked exactly once"
        assert context.queries().total == judged
        ATTACKS.get(name)()(Target(sealed, access=Access.BLACK_BOX), data, Context(cache=tmp_path), model)
        assert sealed.calls == judged, "a second attack asks nothing: signals are cached"


@pytest.mark.parametrize("name", list(ATTACKS))
def test_refuses_a_threat_model_that_it_does_not_serve(name, overfitted, tmp_path):
    target, splits, dataset = overfitted
    attack = ATTACKS.get(name)()
    foreign = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.OUT_OF_DISTRIBUTION)
    if foreign not in attack.threat_models:
        with pytest.raises(ConfigurationError, match="does not serve"):
            attack(target, AttackData(dataset, splits), Context(cache=tmp_path), foreign)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_measures_are_good_for_the_owner_when_low(name, overfitted, tmp_path):
    target, splits, dataset = overfitted
    attack = ATTACKS.get(name)
    found, _ = measures(name, attack.threat_models[0], target, AttackData(dataset, splits), tmp_path)
    assert {m.direction.value for m in found.values()} == {"lower"}
