"""Neural Cleanse: the search against one label at a time, the verdict, its contract."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from backdoored import TRAINING
from one_label import find
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.detectors import DETECTORS
from securitynet.detectors._neural_cleanse import announcement
from securitynet.detectors._neural_cleanse.blocks import BlockSearch, label_bytes
from securitynet.detectors._neural_cleanse.costs import CostRules, Costs
from securitynet.detectors._neural_cleanse.fresh_images import compute_success, count_hits
from securitynet.detectors._neural_cleanse.label_search import SearchPlan
from securitynet.detectors._neural_cleanse.memory import check_search_memory, estimate_memory
from securitynet.detectors._neural_cleanse.trigger_search import SearchRules, TriggerSearch
from securitynet.detectors._neural_cleanse.triggers import Triggers
from securitynet.detectors.neural_cleanse import NeuralCleanse
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.memory import read_available_memory
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

WHITE = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL)
RULES = CostRules(initial=1e-3, threshold=0.99, patience=5, multiplier=2.0, stop_ratio=1.0, stop_patience=None)
QUICK = {"images": 64, "epochs": 3, "longest": 3, "patience": 1, "restarts": 1}


def data_of(dataset):
    return TrialData(dataset, splits.make("public", dataset))


def measured(output, seed=0):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=seed)}


def train_facts(dataset):
    from securitynet.models.store.model_record import TargetRecord
    from securitynet.models.training.recipe import Recipe

    recipe = Recipe(epochs=2, optimizer="adam", learning_rate=3e-3)
    return TargetRecord.model_construct(architecture="simple-cnn", recipe=recipe)


def small_target(channels=1, height=8, width=8, classes=10, head="logits", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        layers.append(nn.Linear(32, classes))
        layers += [nn.Softmax(dim=1)] if head == "probabilities" else []
    backend = ModuleBackend(
        nn.Sequential(*layers), reference="small", checksum=f"{seed}", example_shape=(channels, height, width)
    )
    return Target(backend, head=head, access=Access.WHITE_BOX)


def noise_data(channels=1, height=8, width=8, classes=10, count=400):
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (count, channels, height, width), dtype=np.uint8))
    labels = (np.arange(count) % classes).astype(np.int64)
    parts = {"train": np.arange(0, count // 2), "test": np.arange(count // 2, count)}
    names = tuple(f"c{number}" for number in range(classes))
    return data_of(ImageDataset("noise", images, labels, names, parts))


@pytest.mark.parametrize("stop_patience", [None, 6])
def test_many_labels_at_once_find_what_one_at_a_time_finds(backdoored, digits, stop_patience):
    images = digits.batch(digits.parts["test"][:64])
    rules = SearchRules(RULES.model_copy(update={"stop_patience": stop_patience, "patience": 2}), 0.1, 32, seed=5)
    labels, epochs = [0, 3, 7], 40 if stop_patience else 15
    run = TriggerSearch(backdoored, images, labels, rules)
    starts = run.raw.clone()
    for epoch in range(epochs):
        if run.active.any():
            run.epoch(epoch)

    def batches(epoch):
        order = torch.randperm(len(images), generator=make_generator(5, "order", epoch))
        return [images[part].float() / 255 for part in order.split(32)]

    for row, label in enumerate(labels):
        norm, mask, ran = find(
            backdoored.module, batches, starts[row, -1:], starts[row, :-1], label,
            epochs=epochs, patience=2, stop_patience=stop_patience,
        )  # fmt: skip
        assert int(run.epochs[row]) == pytest.approx(ran, abs=1)
        # Rounding in another order is all that differs; the tolerance that is stated is one percent.
        assert float(run.norms()[row]) == pytest.approx(norm, rel=0.01)
        assert float((run.masks()[row] - mask[0]).abs().mean()) < 0.01


def test_one_step_is_the_gradient_of_the_loss(backdoored, digits):
    images = digits.batch(digits.parts["test"][:32])
    run = TriggerSearch(backdoored, images, [2, 4], SearchRules(RULES, 0.1, 32, seed=0))
    run.costs.cost[:] = 0.05  # with the weight of the norm in it
    starts = run.raw.clone()
    run.epoch(0)

    def once(epoch):
        return [images[torch.randperm(32, generator=make_generator(0, "order", epoch))].float() / 255]

    for row, label in enumerate((2, 4)):
        mask, pattern = starts[row, -1:].clone().requires_grad_(), starts[row, :-1].clone().requires_grad_()
        m = torch.tanh(mask) / (2 - 1e-7) + 0.5
        p = torch.tanh(pattern) / (2 - 1e-7) + 0.5
        logits = backdoored.module((1 - m) * once(0)[0] + m * p)
        loss = nn.functional.cross_entropy(logits, torch.full((32,), label)) + 0.05 * m.sum()
        adam = torch.optim.Adam([pattern, mask], lr=0.1, betas=(0.5, 0.9))
        loss.backward()
        adam.step()
        torch.testing.assert_close(run.raw[row, -1:], mask.detach(), atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(run.raw[row, :-1], pattern.detach(), atol=2e-4, rtol=1e-4)


def test_weight_of_the_norm_by_hand():
    costs = Costs.fresh(CostRules(**{**RULES.model_dump(), "patience": 2, "stop_patience": 3}), 1)
    rows, seen = torch.tensor([0]), []
    #         not yet   works: set   up         fails: down                  no progress until it is finished
    course = [(0.5, 9), (1.0, 8), (1.0, 7), (1.0, 6), (1.0, 5), (0.9, 4), (0.9, 4), (1.0, 5), (1.0, 5), (1.0, 5)]
    for success, norm in course:
        better, finished = costs.update(rows, torch.tensor([success]), torch.tensor([float(norm)], dtype=torch.float64))
        seen.append((float(costs.cost[0]), bool(better[0]), bool(finished[0])))
    values = [cost for cost, _, _ in seen]
    assert values[:5] == [0, 0, 1e-3, 2e-3, 2e-3]
    assert values[6] == pytest.approx(2e-3 / 2**1.5)
    assert [better for _, better, _ in seen] == [False, True, True, True, True] + [False] * 5
    # Epochs without progress: the failures count too, for something was found already.
    assert [finished for *_, finished in seen].index(True) == 7
    assert float(costs.best[0]) == 5


def test_which_norms_have_settled_by_hand():
    """In order: fell enough; fell until the end; stands at the start; lowered; reached at the end only; finished."""
    costs = Costs.fresh(RULES, 6)
    costs.best = torch.tensor([100.0, 100.0, 500.0, 300.0, math.inf, math.inf], dtype=torch.float64)
    costs.mark()
    costs.best = torch.tensor([86.0, 84.0, 490.0, 290.0, 50.0, math.inf], dtype=torch.float64)
    costs.went_down[3] = True
    finished = torch.tensor([False] * 5 + [True])
    assert costs.find_settled(finished, start=512).tolist() == [True, False, False, True, False, True]


def test_no_norm_has_settled_before_the_hundredth_step(innocent, digits):
    search = TriggerSearch(innocent, digits.batch(np.arange(32)), [0, 1, 2], SearchRules(RULES, 0.1, 32, seed=0))
    search.costs.best.fill_(1.0)
    search.costs.mark()
    search.active[2] = False
    search.steps[:] = torch.tensor([99, 100, 9])
    assert search.settled().tolist() == [False, True, True]


def test_a_label_runs_the_same_whatever_runs_beside_it(innocent, digits):
    images = digits.batch(digits.parts["test"][:32])
    rules = SearchRules(RULES, 0.1, 16, seed=0)
    alone, together = TriggerSearch(innocent, images, [4], rules), TriggerSearch(innocent, images, [1, 4, 9], rules)
    for epoch in range(3):
        alone.epoch(epoch)
        together.epoch(epoch)
    torch.testing.assert_close(alone.raw[0], together.raw[1], atol=1e-3, rtol=1e-3)


def test_finds_the_backdoor_and_names_its_label(backdoored, digits):
    output = NeuralCleanse(images=128, epochs=40, patience=2, restarts=1)(backdoored, data_of(digits), Context(), WHITE)
    measurements = measured(output)
    assert output.labels[output.norms.argmin()] == 1
    assert output.flagged[0] == output.suspects[0] == 1, output.norms
    assert measurements["p-value"].value <= 0.05
    assert measurements["verdict"].value >= 2
    assert measurements["suspect-label"].value == 1
    assert "label 1" in measurements["verdict"].note
    assert measurements["fresh-success"].value > 0.9
    mask = output.masks[list(output.labels[output.pictured]).index(1)]
    assert mask[6:, 6:].sum() > 0.5 * mask.sum(), "it lies in the bottom-right corner"
    assert (output.success > 0.98).all()


def test_clean_models_are_accused_no_more_often_than_the_level_allows(innocent, digits):
    """A p-value of one clean model is below 0.05 once in twenty: of both models, once in four hundred."""
    other = train_target("simple-cnn", digits, split="public", device="cpu", seed=2, **TRAINING)
    detector, data = NeuralCleanse(images=64, epochs=20, patience=2, restarts=1), data_of(digits)
    both = [measured(detector(target, data, Context(), WHITE)) for target in (innocent, other)]
    assert sum(one["verdict"].value >= 2 for one in both) <= 1
    assert max(one["p-value"].value for one in both) > 0.05


@pytest.mark.parametrize("name", ["innocent", "backdoored"])
def test_a_short_search_neither_accuses_nor_clears(name, digits, request):
    detector = NeuralCleanse(images=64, epochs=12, longest=12, patience=2, restarts=1)
    measurements = measured(detector(request.getfixturevalue(name), data_of(digits), Context(), WHITE))
    assert measurements["settled"].value < 0.75
    assert measurements["verdict"].value == 1
    assert "too short" in measurements["verdict"].note and "neural-cleanse.longest" in measurements["verdict"].note


def test_labels_that_have_not_settled_are_searched_on(innocent, digits):
    settings = {"images": 64, "epochs": 26, "batch_size": 16, "patience": 2, "restarts": 1}
    short, longer = (
        NeuralCleanse(**settings, **more)(innocent, data_of(digits), Context(), WHITE) for more in ({"longest": 26}, {})
    )
    assert set(short.epochs[0]) == {26}
    assert set(longer.epochs[0]) <= {26, 52, 104}
    stopped, reached = longer.epochs[0] < 104, np.isfinite(longer.norms)
    assert longer.settled[0][stopped & reached].all()
    assert measured(longer)["settled"].value >= 0.75 > measured(short)["settled"].value
    assert (longer.norms <= short.norms).all()
    first = longer.epochs[0] == 26  # these labels had settled, and nothing of them changes
    np.testing.assert_array_equal(first, short.settled[0])
    np.testing.assert_array_equal(longer.norms[first], short.norms[first])
    assert (longer.norms[~first] < short.norms[~first]).any()


def test_success_on_fresh_images_by_hand(backdoored, digits):
    """Counts by class of one trigger: the true patch, without a search."""
    rows = digits.parts["test"]
    images, classes = digits.batch(rows), digits.labels[rows]
    mask, pattern = np.zeros((1, 8, 8), np.uint8), np.full((1, 1, 8, 8), 255, np.uint8)
    mask[0, 6:, 6:] = 255
    goals = np.array([1])
    hits = count_hits(backdoored, images, classes, mask, pattern, goals, 10)
    shown = images.clone()
    shown[:, :, 6:, 6:] = 255
    with torch.inference_mode():
        reached = backdoored.module(shown.float() / 255).argmax(dim=1).numpy() == 1
    assert hits[0].tolist() == [int(reached[classes == label].sum()) for label in range(10)]
    success, totals = compute_success(hits, np.bincount(classes, minlength=10), goals)
    assert success[0] == reached[classes != 1].sum()
    assert totals[0] == (classes != 1).sum()


def test_the_search_leaves_images_to_try_its_triggers_on(innocent, digits):
    data = data_of(digits)
    output = NeuralCleanse(**{**QUICK, "images": 10_000})(innocent, data, Context(), WHITE)
    known = len(data.splits.known_non_members)
    assert output.fresh_totals.sum() == min(500, known - int(0.8 * known))
    assert output.fresh_hits.shape == (10, 10)
    assert (output.fresh_hits <= output.fresh_totals).all()


def test_restarts_and_longest_are_left_out_of_ids_by_default():
    assert "longest" not in NeuralCleanse().model_dump(mode="json")
    assert NeuralCleanse(longest=100).model_dump(mode="json")["longest"] == 100
    assert "restarts" not in NeuralCleanse().model_dump(mode="json")
    assert NeuralCleanse(restarts=1).model_dump(mode="json")["restarts"] == 1
    assert NeuralCleanse.model_validate(NeuralCleanse().model_dump(mode="json")).restarts == 3


def test_results_of_earlier_versions_are_read(innocent, digits):
    arrays = NeuralCleanse(**QUICK)(innocent, data_of(digits), Context(), WHITE).arrays()
    for name in ("fresh_hits", "fresh_totals", "transfer", "settled"):
        del arrays[name]
    measurements = measured(Triggers.from_arrays(arrays))
    assert "fresh-success" not in measurements and "settled" not in measurements
    assert measurements["verdict"].value < 3, "nothing is found without fresh images"


def test_same_seed_same_triggers_whatever_was_drawn_before(innocent, digits):
    method, outputs = NeuralCleanse(**QUICK), []
    for start in (1, 2):
        torch.manual_seed(start)
        outputs.append(method(innocent, data_of(digits), Context(seed=3), WHITE).arrays())
    for key, array in outputs[0].items():
        np.testing.assert_array_equal(array, outputs[1][key])
    other = method(innocent, data_of(digits), Context(seed=4), WHITE)
    assert not np.array_equal(other.masks, outputs[0]["masks"])


def test_output_survives_being_stored(innocent, digits):
    output = NeuralCleanse(**QUICK, repeats=2)(innocent, data_of(digits), Context(), WHITE)
    again = Triggers.from_arrays(output.arrays())
    assert measured(again) == measured(output)
    assert len(output.repeats) == 2
    np.testing.assert_array_equal(output.norms, output.repeats.min(axis=0))
    assert (output.repeats[0] != output.repeats[1]).any()
    (gallery,) = output.galleries()
    assert gallery.images.shape == (10, 4, 1, 8, 8)
    assert gallery.images.dtype == np.uint8
    assert len(gallery.rows) == 10


@pytest.mark.parametrize(
    ("longest", "kills", "left"),
    [(6, {4: True}, [4, 5]), (24, {8: True, 12: False}, list(range(12, 24)))],
    ids=["searched in full", "while labels went on"],
)
def test_a_search_that_was_killed_goes_on_to_the_same_triggers(
    longest, kills, left, innocent, digits, tmp_path, monkeypatch
):
    """``kills`` are the epochs before which it is killed, and whether checkpoints are due until then."""
    data, method = data_of(digits), NeuralCleanse(images=64, epochs=6, longest=longest, patience=1, restarts=1)
    whole = method(innocent, data, Context(), WHITE)
    assert whole.epochs.max() == longest
    seen, deaths, epoch = [], set(kills), TriggerSearch.epoch

    def die_once(self, number, report_progress=None):
        if number in deaths:
            deaths.remove(number)
            raise KeyboardInterrupt
        seen.append(number)
        epoch(self, number, report_progress)

    monkeypatch.setattr(TriggerSearch, "epoch", die_once)
    for number, due in kills.items():
        monkeypatch.setattr("securitynet.models.training.checkpoints.CheckpointFile.due", lambda self, due=due: due)
        with pytest.raises(KeyboardInterrupt):
            method(innocent, data, Context(cache=tmp_path), WHITE)
        assert number not in deaths
        seen.clear()
    resumed = method(innocent, data, Context(cache=tmp_path), WHITE)
    assert seen == left
    for key, array in whole.arrays().items():
        np.testing.assert_array_equal(array, resumed.arrays()[key])
    assert [path.name for path in (tmp_path / "neural-cleanse").rglob("*") if path.is_file()] == ["finished-all"]


def test_a_search_that_an_earlier_version_stored_is_done_again(innocent, digits, tmp_path, monkeypatch):
    data, method, store = data_of(digits), NeuralCleanse(**QUICK), BlockSearch.store

    def store_like_earlier_versions(blocks, part, rows):
        store(blocks, part, {name: value for name, value in rows.items() if name != "settled"})

    with monkeypatch.context() as patch:
        patch.setattr(BlockSearch, "store", store_like_earlier_versions)
        first = method(innocent, data, Context(cache=tmp_path), WHITE)
    again = method(innocent, data, Context(cache=tmp_path), WHITE)
    np.testing.assert_array_equal(again.settled, first.settled)
    np.testing.assert_array_equal(again.norms, first.norms)


def test_needs_the_weights(innocent, digits):
    with pytest.raises(AccessDenied):
        NeuralCleanse()(innocent.under(Access.BLACK_BOX), data_of(digits), Context(), WHITE)


def test_needs_clean_images(innocent, digits):
    data = data_of(digits)
    empty = dataclasses.replace(data.splits, known_non_members=np.empty(0, np.int64))
    with pytest.raises(ConfigurationError, match="clean images"):
        NeuralCleanse()(innocent, dataclasses.replace(data, splits=empty), Context(), WHITE)


@pytest.mark.parametrize(
    "shape, head", [((1, 8, 8), "probabilities"), ((3, 8, 12), "logits"), ((1, 9, 5), "logits")], ids=str
)
def test_grey_colour_sides_that_differ_and_probabilities(shape, head):
    target, data = small_target(*shape, head=head), noise_data(*shape)
    output = NeuralCleanse(**QUICK)(target, data, Context(), WHITE)
    assert output.masks.shape == (10, *shape[1:])
    assert output.patterns.shape == (10, *shape)


def test_batch_of_one():
    target, data = small_target(), noise_data()
    output = NeuralCleanse(images=1, epochs=4, patience=1, batch_size=32, restarts=1)(target, data, Context(), WHITE)
    assert np.isfinite(output.norms).any()


def test_labels_that_are_never_reached_stay_out_of_the_median():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 6)

        def forward(self, images):
            scores = self.inner(images.flatten(1))
            return torch.cat([scores, scores.amin(dim=1, keepdim=True) - torch.ones(1, 4)], dim=1)

    torch.manual_seed(0)
    backend = ModuleBackend(Constant(), reference="constant", checksum="c", example_shape=(1, 8, 8))
    output = NeuralCleanse(images=64, epochs=12, patience=2, restarts=1)(
        Target(backend, access=Access.WHITE_BOX), noise_data(), Context(), WHITE
    )
    assert np.isinf(output.norms[6:]).all()
    found = measured(output)
    assert found["converged"].value == np.isfinite(output.norms).mean() <= 0.6
    reached = output.norms[np.isfinite(output.norms)]
    deviation = 1.4826 * np.median(np.abs(reached - np.median(reached)))
    assert found["anomaly-index"].value == pytest.approx((np.median(reached) - reached.min()) / deviation)


def test_hundreds_of_classes_get_a_short_search_and_some_a_full_one():
    target, data = small_target(classes=200), noise_data(classes=200, count=800)
    settings = {
        "images": 32,
        "epochs": 4,
        "patience": 1,
        "restarts": 1,
        "screen_epochs": 2,
        "screen_lowest": 5,
        "screen_sample": 20,
    }
    output = NeuralCleanse(**settings)(target, data, Context(), WHITE)
    assert output.population == 200
    assert 21 <= len(output.labels) <= 26
    assert output.sampled.sum() == 21
    assert (output.epochs == 4).all()
    whole = NeuralCleanse(**{**settings, "screen_above": 200})(target, data, Context(), WHITE)
    assert len(whole.labels) == 200
    np.testing.assert_allclose(output.norms, whole.norms[output.labels], rtol=0.02)
    assert "p-value" in measured(output)


def test_blocks_find_what_one_search_finds_and_leave_little(tmp_path, monkeypatch, caplog):
    target, data = small_target(classes=20), noise_data(classes=20, count=80)
    settings = {"images": 16, "epochs": 4, "patience": 1, "screen_above": 8, "screen_epochs": 2, "screen_lowest": 3}
    method = NeuralCleanse(**settings, screen_sample=8)
    whole = method(target, data, Context(), WHITE)
    size = label_bytes(data.dataset.image_shape)
    monkeypatch.setattr("securitynet.detectors._neural_cleanse.blocks.BLOCK_BYTES", 6 * size)
    caplog.set_level("INFO")
    blocks = method(target, data, Context(cache=tmp_path), WHITE)
    assert "20 labels in blocks of 6" in caplog.text
    for name, array in whole.arrays().items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, blocks.arrays()[name], rtol=1e-3)
        elif name not in ("masks", "patterns"):  # rounding may move a pixel by one level
            np.testing.assert_array_equal(array, blocks.arrays()[name])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [
        path.name for path in files if "checkpoint" in path.name or "screen" in path.name or "full" in path.name
    ] == []
    monkeypatch.setattr(TriggerSearch, "epoch", None)  # a search that is finished is not repeated
    again = method(target, data, Context(cache=tmp_path), WHITE)
    np.testing.assert_array_equal(again.norms, blocks.norms)


def test_memory_is_planned_before_a_search_starts(monkeypatch):
    shape = (3, 224, 224)
    screened, full = (
        estimate_memory(shape, 1000, 21_000, count, screened=count < 21_000) for count in (16 + 41, 21_000)
    )
    thousand = estimate_memory(shape, 1000, 1000, 16 + 41, screened=True)
    assert thousand == screened  # blocks and the labels that go on, whatever the number of classes
    # By hand: 83 labels of 4 copies of 4 numbers a pixel in a block, 57 that go on, all of it twice.
    pixels, block = 224 * 224, (1 << 28) // (64 * 224 * 224)
    results, images = 2 * 57 * 4 * pixels, 1000 * 3 * pixels
    assert thousand == 2 * (block + 57) * 64 * pixels + results + images + 4 * (1 << 26)
    check_search_memory(thousand, 1000, 57, available=2_000_000_000)
    check_search_memory(full, 21_000, 21_000, available=None)
    with pytest.raises(ConfigurationError, match=r"21,000 labels.*9\.\d GB.*8\.0 GB"):
        check_search_memory(full, 21_000, 21_000, available=8_000_000_000)
    assert read_available_memory() > 1 << 20
    monkeypatch.setattr("securitynet.detectors._neural_cleanse.label_search.read_available_memory", lambda: 1000)
    monkeypatch.setattr(TriggerSearch, "epoch", None)  # nothing is computed before the refusal
    with pytest.raises(ConfigurationError, match="GB are free"):
        NeuralCleanse(images=16)(small_target(classes=20), noise_data(classes=20, count=80), Context(), WHITE)


def test_a_long_search_says_its_time_before_it_starts(monkeypatch, caplog):
    monkeypatch.setattr(announcement, "LEAST_PIXELS", 1)
    monkeypatch.setattr(announcement, "measure_pass", lambda network, shape, device: 1.0)
    plan = SearchPlan(classes=1000, epochs=50, screen_epochs=5, lowest=16, sample=tuple(range(41)))
    # 57 labels go on: 57 · 45 + 1,000 · 5 epochs, on 8 images from 3 starting points, a second each.
    assert plan.work == 57 * 45 + 1000 * 5
    announcement.announce_search(small_target(classes=20), torch.zeros(8, 1, 8, 8, dtype=torch.uint8), plan, 3)
    assert "take about 2 days here: 1,000 labels, 57 of them for 50 epochs after 5 epochs of all" in caplog.text
    caplog.clear()
    monkeypatch.setattr(announcement, "measure_pass", lambda network, shape, device: 1e-5)
    announcement.announce_search(small_target(classes=20), torch.zeros(8, 1, 8, 8, dtype=torch.uint8), plan, 3)
    assert not caplog.text


@pytest.mark.slow
def test_bf16_is_verified_where_a_verdict_rests_on_it(backdoored, digits):
    data, settings = data_of(digits), {"images": 64, "epochs": 30, "patience": 2, "restarts": 1}
    exact = NeuralCleanse(**settings)(backdoored, data, Context(), WHITE)
    quick = NeuralCleanse(**settings, precision="bf16")(backdoored, data, Context(), WHITE)
    assert exact.verified.all()
    for position in {int(quick.norms.argmin()), *quick.flagged, *quick.suspects}:
        assert quick.verified[position]
        assert quick.norms[position] == pytest.approx(exact.norms[position], rel=1e-3)
    assert not quick.verified.all()
    assert int(quick.norms.argmin()) == int(exact.norms.argmin()) == 1


@pytest.mark.parametrize("faster", [True, False])
def test_auto_is_bf16_where_that_is_faster(monkeypatch, faster):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: faster)
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    detector = NeuralCleanse(**QUICK, precision="auto")
    result = detector.search(small_target(classes=6), images, SearchPlan(classes=6, epochs=3))
    assert bool(result.verified.all()) is not faster, "labels that decide nothing are not searched again"


def test_clean_models_trained_likewise_to_compare_with(innocent, digits, tmp_path):
    trained = train_facts(digits)
    data = dataclasses.replace(data_of(digits), trained=trained)
    output = NeuralCleanse(**QUICK, reference=2)(innocent, data, Context(cache=tmp_path), WHITE)
    assert output.reference.shape == (2, 10)
    assert not np.array_equal(output.reference[0], output.reference[1])
    assert output.transfer.shape == (2, 10)
    assert measured(output)["reference-p-value"].value >= 1 / 3
    with pytest.raises(ConfigurationError, match="not known"):
        NeuralCleanse(**QUICK, reference=2)(innocent, data_of(digits), Context(), WHITE)


def test_presets():
    assert NeuralCleanse().passes == 50
    assert NeuralCleanse().cost_rules.stop_patience is None
    original = NeuralCleanse(preset="original")
    assert (original.passes, original.cost_rules.stop_patience, original.cost_rules.patience) == (1000, 25, 5)
    assert NeuralCleanse(preset="original", epochs=20).passes == 20
    with pytest.raises(ConfigurationError):
        NeuralCleanse(epochs=0)


def test_is_registered_and_not_part_of_the_standard_set():
    assert DETECTORS.get("neural-cleanse") is NeuralCleanse
    assert NeuralCleanse.costs
    assert math.isclose(NeuralCleanse().learning_rate, 0.1)


@pytest.mark.slow
def test_light_epochs_take_a_quarter_of_the_images_and_norms_come_from_the_others(backdoored, digits, tmp_path):
    data, settings = data_of(digits), {"images": 128, "epochs": 40, "patience": 2, "restarts": 1}
    whole = NeuralCleanse(**settings)(backdoored, data, Context(), WHITE)
    light = NeuralCleanse(**settings, light=0.7)(backdoored, data, Context(), WHITE)
    ratios = light.norms / whole.norms
    assert 0.9 < np.median(ratios) < 1.15
    assert (ratios < 1.4).all() and (ratios > 0.7).all()
    assert int(light.norms.argmin()) == int(whole.norms.argmin()) == 1
    # Labels near the rule's bound may fall on either side of it, as norms differ by some percent.
    assert light.flagged[0] == whole.flagged[0] == 1
    images = data.dataset.batch(data.splits.known_non_members[:64])
    rules = SearchRules(RULES.model_copy(update={"patience": 1}), 0.1, 32, seed=0, light_epochs=3)
    run, seen = TriggerSearch(backdoored, images, [0, 1], rules), []
    backward = run._backward
    run._backward = lambda batch, *rest: seen.append(len(batch)) or backward(batch, *rest)
    for epoch in range(4):
        run.epoch(epoch)
    assert seen == [8] * 6 + [32] * 2
    assert int(run.steps[0]) == 8
    # What counts is of the last epoch alone.
    run.costs.best[:] = 1e-9
    run.epoch(3)
    assert (run.costs.best > 1).all()


def test_a_search_with_light_epochs_goes_on_where_it_was_killed(backdoored, digits, tmp_path, monkeypatch):
    data, settings = data_of(digits), {"images": 64, "epochs": 10, "patience": 1, "light": 0.5, "restarts": 1}
    whole = NeuralCleanse(**settings)(backdoored, data, Context(), WHITE)
    monkeypatch.setattr("securitynet.models.training.checkpoints.CheckpointFile.due", lambda self: True)
    epoch, ran = TriggerSearch.epoch, []

    def killed(self, number, report_progress=None):
        if number == 6 and not ran.count(6):
            ran.append(number)
            raise KeyboardInterrupt
        ran.append(number)
        epoch(self, number, report_progress)

    monkeypatch.setattr(TriggerSearch, "epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        NeuralCleanse(**settings)(backdoored, data, Context(cache=tmp_path), WHITE)
    again = NeuralCleanse(**settings)(backdoored, data, Context(cache=tmp_path), WHITE)
    assert ran[:11] == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9]
    np.testing.assert_array_equal(again.norms, whole.norms)
