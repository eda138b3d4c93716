"""BREP-MI: its walk on classes whose middle is known, and the attack on digits and on a target that knows nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from inversion_targets import CHANCE_EVALUATOR, GAN, QUICK
from securitynet.attacks.inversion._repulsion import WalkRules, advance_walk, compute_repulsion, start_walk
from securitynet.attacks.inversion.boundary_repulsion import BoundaryRepulsion
from securitynet.methods.context import Context
from securitynet.models.targets.target import Target
from securitynet.records import Access

RULES = WalkRules(points=32, radius=0.5, expansion=1.3, inside=1.0, patience=30, draws=500, clip=4.0, seed=0)
CENTRES = torch.tensor([[1.5, 0.0, 0.0], [-1.0, 1.0, 0.0]])
OPTIONS = {**QUICK["generative"], "points": 32, "patience": 40, "inside": 0.75, "draws": 400, "restarts": 2}


def balls(codes):
    """Two classes are balls of radius 1.2 around their centres; the rest of the space is a third class."""
    apart = torch.cdist(codes, CENTRES)
    return torch.where(apart.amin(dim=1) < 1.2, apart.argmin(dim=1), 2)


def walk(oracle, classes, rules, steps=200):
    state = start_walk(oracle, classes, 3, rules, torch.device("cpu"))
    first = {name: value.clone() for name, value in state.items()}
    for step in range(steps):
        if not advance_walk(state, step, oracle, classes, rules):
            break
    return first, state


def test_repulsion_by_hand():
    directions = torch.eye(2).repeat(2, 1, 1)  # (1, 0) and (0, 1) for two vectors
    inside = torch.tensor([[False, True], [True, True]])
    torch.testing.assert_close(compute_repulsion(inside, directions), torch.tensor([[-0.5, 0.0], [0.0, 0.0]]))


def test_the_walk_ends_in_the_middle_of_the_class():
    classes = torch.tensor([0, 0, 1, 1])
    first, state = walk(balls, classes, RULES)
    assert torch.equal(balls(first["codes"]), classes) and torch.equal(balls(state["codes"]), classes)
    before, after = ((codes["codes"] - CENTRES[classes]).norm(dim=1) for codes in (first, state))
    assert after.mean() < 0.5 * before.mean() and after.max() < 0.6
    assert (state["radius"] > 0.5).all() and (state["radius"] < 1.2 * 1.3).all()


def test_a_class_that_is_never_seen_is_left_alone():
    classes = torch.tensor([0, 5])
    first, state = walk(balls, classes, dataclasses.replace(RULES, draws=100))
    assert state["radius"][1] == 0 and state["steps"].tolist()[1] == 0
    torch.testing.assert_close(state["codes"][1], first["codes"][1])


def run(target, data, cache, access=Access.BLACK_BOX, **changes):
    attack = BoundaryRepulsion(**{**OPTIONS, **changes})
    context = Context(seed=0, cache=cache, device="cpu")
    return attack(target.under(access), data, context, attack.threat_models[0]), context


def fresh(target) -> Target:
    """The target with a query counter of its own, so that queries of other tests do not count."""
    return Target(target.backend, head=target.head, preprocessing=target.preprocessing, access=Access.WHITE_BOX)


@pytest.mark.slow
def test_digits_by_labels_alone(digits_target, digits_data, inversion_cache):
    target = fresh(digits_target)
    output, context = run(target, digits_data, inversion_cache, rounds=100)
    found = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    assert found["accuracy"].low > 0.15  # guessing gives 0.1
    assert found["posterior"].value > 0.6
    queries = context.queries()
    assert queries.total == target.query_counter.total and queries.total >= output.iterations.sum() * 33


def test_a_target_that_knows_nothing_gives_chance(random_target, digits_data, inversion_cache):
    small = {"evaluator": CHANCE_EVALUATOR, "gan": {**GAN, "steps": 60}}
    output, _ = run(fresh(random_target(3)), digits_data, inversion_cache, rounds=8, **small)
    found = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    assert found["accuracy"].low <= 0.1 and found["accuracy"].value < 0.4
    assert np.isfinite(found["judge-accuracy"].value)
