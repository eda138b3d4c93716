"""Activation clustering: by hand, on poisoned training records, and on clean ones."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from backdoored import GOAL, PATCH
from securitynet.detectors._activation_clustering.clusters import Clusters, Division, divide, measure_avoidance
from securitynet.detectors.activation_clustering import ActivationClustering
from securitynet.errors import SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import clusters
from securitynet.records import Access, Auxiliary, ThreatModel

MODEL = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL)


def run(target, data, cache=None, **settings):
    context = Context(cache=cache)
    output = ActivationClustering(**settings)(target, data, context, MODEL)
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}, output, context


@pytest.mark.parametrize("reduction", ["pca", "ica", "both"])
def test_finds_the_poison_in_the_data_that_the_model_was_trained_on(patched, reduction):
    target, _, dirty, chosen = patched
    found, output, context = run(target, dirty, reduction=reduction)
    _, p_values, suspect = output.judged()
    assert output.classes[p_values < 0.05].tolist() == [GOAL]
    caught = np.isin(output.indices, chosen)
    least = {"pca": 0.85, "ica": 0.4, "both": 0.4}[reduction]  # independent components hide a part of the poison
    assert suspect[caught].mean() > least and suspect[~caught].mean() < 0.02
    assert found["foreign-p-value"].value < 1e-3 and "detection-rate" not in found
    assert context.queries().total == len(dirty.splits.members) + len(dirty.splits.known_non_members)
    first = output.galleries()[0]
    assert first.rows[0] == f"{GOAL}, avoided" and first.images.shape[2:] == (1, 8, 8)


def test_with_a_known_trigger_detection_is_measured(patched):
    target, data, _, _ = patched
    found, output, _ = run(target, data, trigger=PATCH, rate=0.1)
    assert output.poisoned.sum() == 90
    assert found["detection-rate"].low > 0.8 and found["false-rejection-rate"].value < 0.02
    assert set(output.labels[output.poisoned]) == {GOAL}
    trigger_free = data.dataset.labels[output.indices[output.poisoned]]
    assert GOAL not in trigger_free, "only records that the trigger sends elsewhere"


def test_the_poisoned_records_of_a_backdoor_are_used(patched, digits):
    from securitynet.backdoors.badnets import Badnets

    target, data = patched[:2]
    # The patch, the class and the share are those of the network; it learned them from other records.
    splits, backdoor = data.splits, Badnets(target=GOAL, rate=0.15, margin=0, size=2)
    poisoned = backdoor.poison(digits, splits.members)
    found, output, _ = run(target, TrialData(digits, splits, backdoor=backdoor))
    np.testing.assert_array_equal(output.indices[output.poisoned], poisoned.indices)
    assert found["detection-rate"].low > 0.7 and found["foreign-classes"].value == pytest.approx(0.1)
    from securitynet.detectors.strip import Strip

    strip = Strip(images=60, overlays=20)
    model = strip.threat_models[0]
    filtered = strip(target, TrialData(digits, splits, backdoor=backdoor), Context(), model)
    by_name = {m.name: m for m in filtered.measurements(level=0.95, fprs=(), seed=0)}
    assert by_name["trigger-success-rate"].value > 0.8 and by_name["detection-rate"].value > 0.7
    assert len(filtered.triggered) < 60, "records of the trigger's own class are left out"


def test_finds_nothing_where_nothing_is_hidden(unpatched):
    found, output, _ = run(*unpatched)
    assert found["foreign-classes"].value == 0 and found["suspect-records"].value == 0
    assert found["foreign-p-value"].value > 0.05
    assert output.poisoned is None


def test_no_poison_is_called_on_records_drawn_alike():
    """The p-value's rate of false alarms where training records and clean images are of one distribution."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        share = random.uniform(0.05, 0.95, 10)
        training = np.stack([random.binomial(80, share), np.zeros(10, int)], axis=1)
        training[:, 1] = 80 - training[:, 0]
        clean = np.stack([random.binomial(40, share), np.zeros(10, int)], axis=1)
        clean[:, 1] = 40 - clean[:, 0]
        alarms += bool(
            clusters.correct_for_clusters(clusters.find_foreign_clusters(training, clean)[1], 10).min() < 0.05
        )
    assert stats.binomtest(alarms, 200).proportion_ci(0.99).low <= 0.05


def test_foreign_clusters_by_hand():
    training = np.array([[60, 40], [50, 50], [90, 10], [0, 0]])
    clean = np.array([[50, 0], [25, 25], [45, 5], [3, 4]])
    which, p_values = clusters.find_foreign_clusters(training, clean)
    expected = stats.hypergeom.sf(39, 150, 40, 100)  # all 40 of the cluster are among the 100 training records
    assert which[0] == 1 and p_values[0] == pytest.approx(expected)
    assert p_values[1:].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(
        clusters.correct_for_clusters(np.array([0.01, 0.4, 0.02, 0.03]), 4),
        multipletests([0.01, 0.4, 0.02, 0.03], method="holm")[1],
    )
    flagged = clusters.apply_rule(np.array([0.3, 0.3, 0.05, np.nan]), np.array([[80, 20], [60, 40], [80, 20], [0, 0]]))
    assert flagged.tolist() == [True, False, False, False]


@pytest.mark.parametrize("reduction", ["pca", "ica"])
def test_two_groups_that_are_far_apart_are_told_apart(reduction):
    random = np.random.default_rng(1)
    centres = random.normal(size=(2, 30)) * 4
    truth = (np.arange(300) % 4 == 0).astype(int)
    points = (centres[truth] + random.normal(size=(300, 30))).astype(np.float32)
    points[:, 5] = 0  # a dead unit
    division = divide(points, points[truth == 0], reduction=reduction, dims=10, seed=3)
    agreement = (division.owner == truth).mean()
    assert max(agreement, 1 - agreement) == 1
    assert division.silhouette > 0.1
    assert len(np.unique(division.clean)) == 1


@pytest.mark.parametrize("reduction", ["pca", "ica"])
def test_activations_without_variation_are_survived(reduction):
    same = np.ones((30, 4), np.float32)
    assert divide(same, same[:3], reduction=reduction, dims=10, seed=0).silhouette == -1
    line = np.outer(np.arange(30), np.ones(4)).astype(np.float32)  # one direction
    assert divide(line, line[:3], reduction=reduction, dims=10, seed=0).silhouette > 0.4


def test_too_few_records_are_told(unpatched):
    target, data = unpatched
    few = dataclasses.replace(data.splits, members=data.splits.members[:15])
    with pytest.raises(SplitError, match="at least 20"):
        run(target, dataclasses.replace(data, splits=few))


def test_a_second_run_computes_no_activation_again(unpatched, tmp_path, monkeypatch):
    target, data = unpatched
    first, _, context = run(target, data, tmp_path, reduction="pca")
    seen = []
    embeddings = type(target).embeddings
    monkeypatch.setattr(type(target), "embeddings", lambda self, images: seen.append(1) or embeddings(self, images))
    second, _, again = run(target, data, tmp_path, reduction="ica")
    assert not seen and again.queries() == context.queries()
    assert first["foreign-p-value"].value is not None and second["foreign-p-value"].value is not None


def test_of_two_divisions_the_one_that_clean_images_avoid_counts_and_p_is_doubled():
    """Poison that only the second division separates: Fisher's p of 20 of 100 records against 0 of 50 clean images."""
    half = Division(np.repeat([0, 1], 50), np.repeat([0, 1], 25), 0.2)
    foreign = Division(np.repeat([0, 1], [80, 20]), np.zeros(50, np.int64), 0.2)
    expected = stats.fisher_exact([[20, 80], [0, 50]], alternative="greater").pvalue
    assert measure_avoidance(half) == 1.0 and measure_avoidance(foreign) == pytest.approx(expected)
    counts = np.array([[80, 20]]), np.array([[50, 0]])
    common = np.arange(100), np.zeros(100, np.int64), foreign.owner, np.array([0]), ("a",), np.array([0.2]), *counts
    assert Clusters(*common).judged()[1] == pytest.approx([expected])
    both = Clusters(*common, reductions=2)
    assert both.judged()[1] == pytest.approx([2 * expected])
    assert Clusters.from_arrays(both.arrays()).reductions == 2 and "reductions" not in Clusters(*common).arrays()
