"""Learned membership attacks: nobody is learned from and scored, warnings arrive, classes and seeds do their part."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from securitynet.assessments.trial_plan import name_trial
from securitynet.attacks import ATTACKS
from securitynet.attacks.membership import attack_together
from securitynet.attacks.membership._learned import _says_nothing
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

PARTIAL = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
SHADOW = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW)
QUICK = {"architecture": "simple-cnn", "recipe": {"epochs": 2, "learning_rate": 0.05}}


@pytest.fixture(scope="module")
def parts(overfitted, unseen):
    """(target, data) with 350 known and 350 scored records on each side, none of them seen by the target."""
    target, _, dataset = overfitted
    return target, TrialData(dataset, unseen(seed=4))


def run(name, target, data, model=PARTIAL, seed=0, cache=None, **fields):
    attack = ATTACKS.get(name)(**{"epochs": 5, **fields})
    return attack(target, data, Context(seed=seed, cache=cache, device="cpu"), model)


def moved(data, indices):
    """The same data, where scored records have changed sides."""
    splits = data.splits
    leave, join = np.intersect1d(indices, splits.members), np.intersect1d(indices, splits.non_members)
    members = np.union1d(np.setdiff1d(splits.members, leave), join)
    non_members = np.union1d(np.setdiff1d(splits.non_members, join), leave)
    return TrialData(data.dataset, dataclasses.replace(splits, members=members, non_members=non_members))


@pytest.mark.parametrize("name", ["mlp-posteriors", "mlp-top3", "ml-doctor-black-box"])
def test_nothing_is_both_learned_from_and_scored(name, parts, tmp_path):
    target, data = parts
    splits = data.splits
    first = run(name, target, data, cache=tmp_path)
    np.testing.assert_array_equal(first.indices, np.union1d(splits.scored_members, splits.scored_non_members))
    assert first.held_out.all() and first.threshold == 0
    # What they are is never looked at: whoever they are said to be, their scores are the same.
    swapped = run(name, target, moved(data, first.indices[::3]), cache=tmp_path)
    np.testing.assert_array_equal(swapped.indices, first.indices)
    np.testing.assert_array_equal(swapped.scores, first.scores)
    assert (swapped.is_member != first.is_member).sum() == len(first.indices[::3])
    # What the known ones are is all that there is to learn.
    known = np.union1d(splits.known_members, splits.known_non_members)
    other = moved(data, known[::3])
    splits = dataclasses.replace(
        other.splits,
        known_members=np.intersect1d(known, other.splits.members),
        known_non_members=np.intersect1d(known, other.splits.non_members),
    )
    assert (run(name, target, TrialData(data.dataset, splits), cache=tmp_path).scores != first.scores).any()


def test_with_a_shadow_model_all_are_scored_and_none_is_learned_from(parts, tmp_path):
    target, data = parts
    first = run("ml-doctor-black-box", target, data, SHADOW, cache=tmp_path, shadow_training=QUICK)
    np.testing.assert_array_equal(first.indices, data.judged)
    swapped = moved(data, first.indices[::3])
    again = run("ml-doctor-black-box", target, swapped, SHADOW, cache=tmp_path, shadow_training=QUICK)
    np.testing.assert_array_equal(again.scores, first.scores)


def test_both_sides_weigh_the_same_however_many_they_are(parts, tmp_path):
    target, data = parts
    few = dataclasses.replace(data.splits, known_members=data.splits.known_members[:35])
    scores = run("mlp-top3", target, TrialData(data.dataset, few), cache=tmp_path, epochs=20, learning_rate=1e-3).scores
    # Unbalanced, a tenth of members would put nearly all log-odds at about log(1/10) = -2.3.
    assert abs(np.median(scores)) < 1


def test_classes_have_networks_of_their_own(parts, overfitted, tmp_path):
    target, data = parts
    together = run("mlp-top3", target, data, cache=tmp_path)
    apart = run("mlp-top3", target, data, cache=tmp_path, per_class=True)
    assert (apart.scores != together.scores).mean() > 0.9
    # A class with too few known records falls back to the network of all classes.
    labels, splits = data.dataset.labels, data.splits
    few = splits.known_members[labels[splits.known_members] == 3][:5]
    kept = splits.known_members[labels[splits.known_members] != 3]
    scarce = TrialData(data.dataset, dataclasses.replace(splits, known_members=np.union1d(kept, few)))
    general = run("mlp-top3", target, scarce, cache=tmp_path)
    own = run("mlp-top3", target, scarce, cache=tmp_path, per_class=True)
    third = labels[own.indices] == 3
    np.testing.assert_allclose(own.scores[third], general.scores[third], rtol=1e-3, atol=1e-4)
    assert (own.scores[~third] != general.scores[~third]).mean() > 0.9


def test_repeats_are_averaged(parts, tmp_path):
    target, data = parts

    def apart(repeats):
        """How far the scores of two seeds lie apart: less, the more networks each averages."""
        first, second = (
            run("mlp-posteriors", target, data, seed=seed, cache=tmp_path, repeats=repeats).scores for seed in (0, 1)
        )
        return np.abs(first - second).mean()

    assert 0 < apart(6) < 0.7 * apart(1)


def test_global_random_state_is_left_alone(parts, tmp_path):
    target, data = parts
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    run("ml-doctor-black-box", target, data, SHADOW, cache=tmp_path, shadow_training=QUICK)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_warnings_reach_the_measurements_and_survive_being_kept(parts, tmp_path):
    target, data = parts
    output = ATTACKS.get("ml-doctor-black-box")(shadow_training=QUICK)(
        target, data, Context(cache=tmp_path, device="cpu"), SHADOW
    )
    kept = type(output).from_arrays(output.arrays())
    for found in (output, kept):
        (auc, *_rest) = found.measurements(level=0.95, fprs=(0.1,), seed=0)
        assert "shadow models are unlike the target" in auc.note
        assert "150 steps at a learning rate of 1e-05" in auc.note  # 156 records, 3 batches, 50 epochs
    assert not run("mlp-top3", target, data, cache=tmp_path).notes


def test_what_cannot_be_learned_is_refused(parts, tmp_path):
    target, data = parts
    empty = np.empty(0, np.int64)
    with pytest.raises(SplitError, match="0 members and 350 non-members to learn from"):
        splits = dataclasses.replace(data.splits, known_members=empty)
        run("mlp-top3", target, TrialData(data.dataset, splits), cache=tmp_path)
    with pytest.raises(SplitError, match="to score"):
        splits = dataclasses.replace(data.splits, known_members=data.splits.members)
        run("mlp-top3", target, TrialData(data.dataset, splits), cache=tmp_path)
    with pytest.raises(SplitError, match="no shadow data"):
        splits = dataclasses.replace(data.splits, shadow_train=empty, shadow_test=empty)
        run("ml-doctor-black-box", target, TrialData(data.dataset, splits), SHADOW, cache=tmp_path)
    for fields in ({"epochs": 0}, {"k": 0}, {"learning_rate": float("nan")}, {"neurons": 3}):
        with pytest.raises(ConfigurationError):
            ATTACKS.get("mlp-top3")(**fields)


def test_posteriors_as_they_are_on_request(parts, tmp_path):
    target, data = parts
    signals = Context(cache=tmp_path).signals(target, data)
    plain = ATTACKS.get("mlp-top3")(scale="posterior").features(target, signals, data, Context())
    np.testing.assert_allclose(plain[0], -np.sort(-signals.posteriors, axis=1)[:, :3])
    black = ATTACKS.get("ml-doctor-black-box")(scale="posterior").features(target, signals, data, Context())
    np.testing.assert_allclose(black[0], -np.sort(-signals.posteriors, axis=1))
    white = ATTACKS.get("ml-doctor-white-box")(scale="posterior").features(target, signals, data, Context())
    cross_entropy = torch.nn.functional.cross_entropy(
        torch.from_numpy(signals.logits), torch.from_numpy(signals.labels), reduction="none"
    )
    np.testing.assert_allclose(white[1][:, 0], cross_entropy, rtol=1e-4, atol=1e-6)
    for name in ("ml-doctor-black-box", "ml-doctor-white-box"):  # trials at the default keep their ids
        assert (
            "scale" not in ATTACKS.get(name)().model_dump()
            and "scale" in ATTACKS.get(name)(scale="posterior").model_dump()
        )


def test_white_box_with_gradients_as_they_are(overfitted, tmp_path):
    target, splits, dataset = overfitted
    model = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL)
    fields = {"epochs": 40, "learning_rate": 1e-3, "gradients": "raw", "gradient_inputs": 64}
    found = run("ml-doctor-white-box", target, TrialData(dataset, splits), model, cache=tmp_path, **fields)
    auc = found.measurements(level=0.95, fprs=(0.1,), seed=0)[0]
    assert auc.low > 0.6


def test_a_shadow_model_of_another_shape_is_refused_where_shape_matters(parts, tmp_path):
    target, data = parts
    model = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.SHADOW)
    # A last layer of 10×64 instead of 10×128 weights: neither is cut off at this limit.
    fields = {"gradients": "raw", "gradient_inputs": 10_000, "epochs": 1}
    other = {"architecture": "cifar-resnet20", "recipe": {"epochs": 1}}
    with pytest.raises(ConfigurationError, match="650 values for the shadow model and 1290 for the target"):
        run("ml-doctor-white-box", target, data, model, cache=tmp_path, shadow_training=other, **fields)
    # In ranked form, of which the largest values are taken, the two can be compared.
    found = run("ml-doctor-white-box", target, data, model, cache=tmp_path, shadow_training=other, epochs=1)
    assert np.isfinite(found.scores).all() and any("cifar-resnet20" in note for note in found.notes)


def test_a_network_that_says_nothing_is_reported():
    assert _says_nothing(np.array([0.1, 0.2])) == ()
    assert "the same score" in _says_nothing(np.full(5, 0.3))[0]


def test_trials_of_several_threat_models_have_names_of_their_own():
    several, one = ATTACKS.get("ml-doctor-black-box")(), ATTACKS.get("mlp-top3")()
    names = [name_trial("membership.ml-doctor-black-box", several, model) for model in several.threat_models]
    assert names == ["membership.ml-doctor-black-box@partial", "membership.ml-doctor-black-box@shadow"]
    assert name_trial("membership.mlp-top3", one, one.threat_models[0]) == "membership.mlp-top3"


def test_several_targets_at_once_are_as_one_by_one(parts, tmp_path):
    target, data = parts
    other = TrialData(data.dataset, dataclasses.replace(data.splits, known_members=data.splits.known_members[:150]))
    attack = ATTACKS.get("ml-doctor-black-box")(epochs=5, learning_rate=1e-3, per_class=True)
    cases = [
        (target, one, Context(seed=seed, cache=tmp_path, device="cpu"))
        for one, seed in ((data, 0), (other, 1), (data, 2))
    ]
    together = attack_together(attack, cases, PARTIAL)
    for found, (aim, one, context) in zip(together, cases, strict=True):
        alone = attack(aim, one, context, PARTIAL)
        np.testing.assert_array_equal(found.indices, alone.indices)
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-3, atol=1e-4)
        assert found.notes == alone.notes
    assert (together[0].scores != together[2].scores).any()
    with pytest.raises(ConfigurationError, match="no targets"):
        attack_together(attack, [], PARTIAL)
    with pytest.raises(ConfigurationError, match="does not serve"):
        white = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL)
        attack_together(attack, cases, white)


def test_targets_of_different_class_counts_are_trained_apart(parts, overfitted, tmp_path):
    target, data = parts
    few = dataclasses.replace(
        data.dataset, labels=data.dataset.labels % 4, class_names=("0", "1", "2", "3"), attributes={}
    )
    backend = ModuleBackend(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)),
        reference="four",
        checksum="four",
        example_shape=None,
    )
    cases = [(target, data), (Target(backend), TrialData(few, data.splits)), (target, data)]
    attack = ATTACKS.get("mlp-posteriors")(epochs=2)
    contexts = [Context(cache=tmp_path, device="cpu", seed=number) for number in range(3)]
    found = attack_together(attack, [(*case, context) for case, context in zip(cases, contexts, strict=True)], PARTIAL)
    for scores, (aim, one), context in zip(found, cases, contexts, strict=True):
        np.testing.assert_allclose(scores.scores, attack(aim, one, context, PARTIAL).scores, rtol=1e-3, atol=1e-4)
