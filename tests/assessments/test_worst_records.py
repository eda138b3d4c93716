"""The worst records of trainings with a defense: at chance where nothing leaks, and shown where something does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securitynet.assessments.private_baseline import list_candidates, tune_for_utility
from securitynet.assessments.worst_records import choose_audited_records, measure_worst_case, plan_trainings
from securitynet.attacks.membership.lira import LiRA
from securitynet.datasets import load
from securitynet.datasets.splits import make
from securitynet.defenses.distillation import Distillation
from securitynet.errors import ConfigurationError
from securitynet.metrics import trainings
from securitynet.models.store.parallel import obtain_models
from securitynet.models.targets.interface import LabelsOnly, TopK
from securitynet.models.training.recipe import Recipe

TRAININGS = 6
RECIPE = Recipe(epochs=12, batch_size=25, optimizer="adam", learning_rate=3e-3, schedule="constant", weight_decay=0)


@pytest.fixture(scope="module")
def digits():
    return load("digits", limit=240)


@pytest.fixture(scope="module")
def splits(digits):
    return make("public", digits)


@pytest.fixture(scope="module")
def audited(digits, splits):
    return choose_audited_records(digits, splits.members, splits.members[:40], TRAININGS, seed=0)


@pytest.fixture(scope="module")
def models(digits, splits, audited, tmp_path_factory):
    specs = plan_trainings(digits, splits.members, audited, "simple-cnn", RECIPE, None, seed=0)
    return obtain_models(specs, kind="shadows", cache=tmp_path_factory.mktemp("cache"))


def test_canaries_are_mislabelled_members_and_coins_are_fair(digits, splits, audited):
    assert np.isin(audited.records, splits.members).all() and (np.diff(audited.records) > 0).all()
    truth = digits.labels[audited.records]
    assert (audited.labels[audited.is_canary] != truth[audited.is_canary]).all()
    assert (audited.labels[~audited.is_canary] == truth[~audited.is_canary]).all()
    assert set(audited.records[~audited.is_canary]) <= set(splits.members[:40])
    many = choose_audited_records(digits, splits.members, splits.members, 400, seed=1).coins
    assert abs(many.mean() - 0.5) < 0.03 and abs(np.corrcoef(many.T)[np.triu_indices(many.shape[1], 1)]).max() < 0.25


def test_too_few_members_are_refused(digits, splits):
    with pytest.raises(ConfigurationError, match="too few"):
        choose_audited_records(digits, splits.members[:50], splits.members[:0], 8, seed=0)


def test_all_members_are_trained_on_but_for_audited_ones_whose_coin_says_no(digits, splits, audited):
    specs = plan_trainings(digits, splits.members, audited, "simple-cnn", RECIPE, None, seed=0)
    for spec, coins in zip(specs, audited.coins, strict=True):
        assert set(splits.members) - set(spec.indices) == set(audited.records[~coins])
        at = np.searchsorted(spec.indices, audited.records[coins])
        assert (spec.targets[at] == audited.labels[coins]).all()
    assert len({spec.recipe.seed for spec in specs}) == TRAININGS
    held = plan_trainings(digits, splits.members, audited, "simple-cnn", RECIPE, Distillation(data="held-out"), seed=0)
    for spec in held:
        assert spec.aside is not None and not np.isin(spec.aside, audited.records).any()
        assert not np.isin(spec.aside, spec.indices).any()


def test_leave_one_out_is_the_likelihood_ratio_of_the_other_models():
    random = np.random.default_rng(0)
    included = random.integers(0, 2, (9, 5)).astype(bool)
    included[:2], included[2:4] = True, False
    signals = random.standard_normal(included.shape) + included
    scores = LiRA().score_leave_one_out(signals, included)
    others, inside = np.delete(signals, 4, 0), np.delete(included, 4, 0)
    groups = [inside, ~inside]
    means = [np.array([others[group[:, n], n].mean() for n in range(5)]) for group in groups]
    spreads = []
    for group, mean in zip(groups, means, strict=True):
        left = ((others - mean) ** 2)[group].sum() / sum(count - 1 for count in group.sum(axis=0) if count > 1)
        spreads.append(np.sqrt(left))
    expected = [stats.norm.logpdf(signals[4], mean, spread) for mean, spread in zip(means, spreads, strict=True)]
    np.testing.assert_allclose(scores[4], expected[0] - expected[1])


def test_trainings_that_remember_nothing_are_at_chance():
    random = np.random.default_rng(1)
    rates = []
    for _ in range(15):
        included = random.integers(0, 2, (8, 60)).astype(bool)
        scores = LiRA().score_leave_one_out(random.standard_normal(included.shape), included)
        rates.append(trainings.measure_mean_tpr(scores, included, np.ones_like(included), 0.1))
    assert np.mean([rate.value for rate in rates]) == pytest.approx(0.1, abs=0.03)
    assert sum(rate.low > 0.1 for rate in rates) <= 1


@pytest.mark.slow
def test_labels_alone_lower_the_average_and_leave_the_worst_records_exposed(digits, splits, audited, models, tmp_path):
    """The defense that the judgement is for: average AUC near one half, canaries as exposed as before."""
    plain = measure_worst_case(models, audited, digits, splits, cache=tmp_path)
    hidden = measure_worst_case(
        models, audited, digits, splits, cache=tmp_path, behind=lambda target, _: target.through(LabelsOnly())
    )
    assert plain.fpr == 0.1 and plain.canaries.low > plain.fpr and plain.canaries.value > 0.9
    assert hidden.average_auc.high < plain.average_auc.low
    assert hidden.canaries.high > plain.canaries.low and hidden.canaries.low > hidden.fpr
    assert hidden.accuracy == plain.accuracy
    assert plain.exposed is not None and plain.exposed.n + plain.canaries.n == TRAININGS * len(audited.records)
    shown = measure_worst_case(
        models, audited, digits, splits, cache=tmp_path, behind=lambda target, _: target.through(TopK(k=1))
    )
    assert shown.canaries.low > shown.fpr


def test_dp_sgd_is_tuned_by_accuracy_and_then_by_noise(digits, splits):
    candidates = list_candidates(RECIPE)
    given = []

    def accuracies(specs, records):
        given.append((specs, records))
        return [0.5, 0.9, 0.91, 0.7, 0.92, 0.6]

    chosen = tune_for_utility(candidates, digits, splits.members, "simple-cnn", accuracies, seed=0)
    assert chosen is candidates[1]  # the most noise among those within one standard error of 0.92
    specs, records = given[0]
    assert all(not np.isin(spec.indices, records).any() for spec in specs)
    assert np.isin(records, splits.members).all()
