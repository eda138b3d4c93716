"""Ranges, groups, and the share of a dataset that was used: against their definitions, at chance, and with power."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from securitynet.attacks.membership.dataset_usage import DatasetUsage, UsageEstimate, debias
from securitynet.attacks.membership.group_membership import GroupMembership
from securitynet.attacks.membership.lira_offline import LiRAOffline
from securitynet.attacks.membership.loss import Loss
from securitynet.attacks.membership.range_membership import RangeMembership, average_largest, list_range
from securitynet.datasets.base import Attribute
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import obtain_shadow
from securitynet.models.training.recipe import Recipe

TRAINING = {"architecture": "simple-cnn", "recipe": {"epochs": 12, "optimizer": "adam", "learning_rate": 5e-3,
            "batch_size": 16, "schedule": "constant", "weight_decay": 0}}  # fmt: skip


def run(attack, target, splits, dataset, cache=None, **more):
    data = TrialData(dataset, splits, **more)
    return attack(target, data, Context(cache=cache), attack.threat_models[0])


def test_the_trimmed_mean_by_hand():
    values = np.array([[1.0, 5], [2, 1], [3, 0]])
    np.testing.assert_array_equal(average_largest(values, 1.0), [2, 2])
    np.testing.assert_array_equal(average_largest(values, 0.67), [2.5, 3])
    np.testing.assert_array_equal(average_largest(values, 0.01), [3, 5])


def test_a_range_holds_the_record_but_is_not_centred_on_it():
    views = [(view.down, view.right) for view in list_range(1)]
    assert (0, 0) in views and len(set(views)) == 9 and np.mean(views, axis=0).tolist() == [0, 1]


def test_a_range_shows_more_than_its_centre(overfitted, tmp_path):
    target, splits, dataset = overfitted
    ranges = run(RangeMembership(), target, splits, dataset, tmp_path)
    centre = run(RangeMembership(share=1.0), target, splits, dataset, tmp_path)
    assert ranges.measure()["auc"].low > 0.5 and ranges["auc"] > centre["auc"]


def test_groups_show_more_than_records(overfitted, unseen):
    target, splits, dataset = overfitted
    records = run(Loss(), target, splits, dataset)
    groups = run(GroupMembership(size=4), target, splits, dataset)
    assert len(groups.scores) == 60 and groups["auc"] > records["auc"]
    inside = [null.measure()["auc"] for null in
              (run(GroupMembership(size=4), target, unseen(seed), dataset) for seed in range(3))]  # fmt: skip
    assert all(auc.low < 0.5 < auc.high for auc in inside)


def test_groups_by_an_attribute_are_whole_and_unmixed(overfitted):
    target, splits, dataset = overfitted
    user = np.full(len(dataset), -1)
    for records, start in ((splits.members, 0), (splits.non_members, 40)):
        user[records] = start + np.arange(len(records)) % 40
    user[[splits.members[0], splits.non_members[0]]] = 80
    named = dataclasses.replace(dataset, attributes={"user": Attribute(user, tuple(map(str, range(81))))})
    known = dataclasses.replace(
        splits, known_members=splits.members[np.isin(user[splits.members], np.arange(0, 20))],
        known_non_members=splits.non_members[np.isin(user[splits.non_members], np.arange(40, 60))],
    )  # fmt: skip
    output = run(GroupMembership(attribute="user"), target, known, named)
    assert len(output.scores) == 80 and "1 with members and non-members" in output.notes[0]
    group = np.flatnonzero(user == 7)
    signals = Context().signals(target, TrialData(named, known), group)
    from scipy.special import log_softmax

    expected = log_softmax(signals.logits.astype(float), axis=1)[np.arange(len(group)), signals.labels].mean()
    assert output.scores[output.indices == group[0]] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ConfigurationError, match="no attribute"):
        run(GroupMembership(attribute="patient"), target, splits, dataset)


def make_estimate(random, share, tpr=0.7, fpr=0.2, records=400, models=12):
    """Guesses that are right with these rates, of a target that was trained on a share of the records."""
    included = random.random((models + 1, records)) < np.array([share, *[0.5] * models])[:, None]
    guesses = random.random(included.shape) < np.where(included, tpr, fpr)
    return UsageEstimate(np.arange(records), guesses[0], included[0], guesses[1:], included[1:])


def test_the_bias_is_removed_by_hand():
    assert debias(0.45, 0.7, 0.2) == pytest.approx(0.5)
    assert debias(0.2, 0.7, 0.2) == pytest.approx(0) and debias(0.7, 0.7, 0.2) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_interval_holds_the_share_that_was_used(share):
    random = np.random.default_rng(5)
    estimates = [make_estimate(random, share) for _ in range(100)]
    measured = [estimate.measure()["usage"] for estimate in estimates]
    held = [
        one.value is not None and one.low <= estimate.is_member.mean() <= one.high
        for one, estimate in zip(measured, estimates, strict=True)
    ]
    assert sum(held) >= 91  # an interval outside [0, 1] is no share and counts as a miss
    resolved = [one for one in measured if one.value is not None]
    assert np.mean([one.value for one in resolved]) == pytest.approx(share, abs=0.02)
    assert np.mean([one.high - one.low for one in resolved]) < 0.4


def test_guesses_that_know_nothing_resolve_no_share():
    random = np.random.default_rng(0)
    measured = [make_estimate(random, 0.5, 0.3, 0.3).measure()["usage"] for _ in range(20)]
    assert all(one.value is None or (one.low < 0 and one.high > 1) for one in measured)


def test_an_estimate_survives_storage():
    estimate = make_estimate(np.random.default_rng(0), 0.5)
    restored = UsageEstimate.from_arrays(estimate.arrays())
    assert restored.measure() == estimate.measure()


def test_known_non_members_serve_as_shadow_data(overfitted, tmp_path):
    target, splits, dataset = overfitted
    assert len(splits.shadow_train) == 0
    attack = LiRAOffline(shadows={"pool": "known", "count": 6, **TRAINING})
    output = run(attack, target, splits, dataset, tmp_path)
    assert not np.isin(splits.known_non_members, output.indices).any()
    assert set(splits.members) <= set(output.indices) and output.measure()["auc"].low > 0.5


@pytest.mark.slow
def test_the_share_that_a_target_used_is_estimated(overfitted, unseen, tmp_path):
    target, splits, dataset = overfitted
    attack = DatasetUsage(count=8, training=TRAINING)
    half = run(attack, target, splits, dataset, tmp_path).measure()["usage"]
    assert half.low < 0.5 < half.high and half.low > 0
    unlike = run(attack, target, unseen(0), dataset, tmp_path).measure()["usage"]  # it knows wrong labels by heart
    assert unlike.value is None or unlike.low < 0 < unlike.high
    others = unseen(0)
    like = obtain_shadow(dataset, others.members[::2], "simple-cnn", Recipe(**TRAINING["recipe"], seed=5)).target
    apart = dataclasses.replace(
        others, members=others.members[1::2], non_members=others.non_members[::2],
        known_members=others.members[1::4], known_non_members=others.non_members[::4],
    )  # fmt: skip
    nothing = run(attack, like, apart, dataset, tmp_path).measure()["usage"]
    assert nothing.value is None or nothing.low < 0 < nothing.high
