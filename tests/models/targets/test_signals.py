"""One pass only, its cache on disk, and what happens when either is disturbed."""

import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from command_line import start_script
from securitynet.datasets.base import ImageDataset
from securitynet.errors import QueryBudgetExceeded, TargetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets import signals
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.target import Target

CLASSES = 4


class Counting(Backend):
    """A linear model that counts the images that it is sent."""

    reference, checksum, batch_size = "counting", "abc", 8

    def __init__(self, classes=CLASSES):
        self.layer = nn.Linear(3 * 4 * 4, classes)
        generator = torch.Generator().manual_seed(3)
        self.layer.weight.data = torch.randn(self.layer.weight.shape, generator=generator)
        self.layer.bias.data = torch.zeros(classes)
        self.sent = 0
        self.fail_at = None

    def outputs(self, inputs):
        if self.fail_at is not None and self.sent + len(inputs) > self.fail_at:
            raise TargetError("the server has gone")
        self.sent += len(inputs)
        with torch.no_grad():
            return self.layer(inputs.flatten(1))


def make_dataset(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageDataset("toy", images, np.arange(n) % CLASSES, tuple("abcd"), {})


@pytest.fixture
def dataset():
    return make_dataset()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(signals, "BLOCK", 16)


def blocks(cache):
    return sorted(cache.rglob("*.block"))


def test_a_target_is_queried_once(dataset, tmp_path, small_blocks):
    backend = Counting()
    first = signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert backend.sent == first.sent == 40
    assert len(blocks(tmp_path)) == 3
    again = signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert backend.sent == 40
    assert again.sent == 0
    np.testing.assert_array_equal(again.outputs, first.outputs)
    assert again.queries == first.queries
    assert first.queries.total == first.queries.unique == 40


def test_signals_are_the_targets_answers(dataset, tmp_path):
    target = Target(Counting())
    collected = signals.collect_signals(target, dataset, cache=tmp_path)
    np.testing.assert_allclose(collected.outputs, target.raw_outputs(dataset.images).numpy(), atol=1e-5)
    np.testing.assert_allclose(collected.posteriors.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(collected.predictions, target.labels(dataset.images).numpy())
    np.testing.assert_array_equal(collected.correct, collected.predictions == dataset.labels)
    chosen = collected.select(np.array([7, 3, 3]))
    np.testing.assert_array_equal(chosen.outputs, collected.outputs[[7, 3, 3]])
    with pytest.raises(KeyError):
        chosen.select(np.array([8]))


def test_subsets_reuse_blocks_and_ask_only_the_rest(dataset, tmp_path, small_blocks):
    backend = Counting()
    indices = np.array([20, 2, 2, 35, 1])
    some = signals.collect_signals(Target(backend), dataset, indices, cache=tmp_path)
    assert backend.sent == 4
    assert some.queries.total == 4
    whole = signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert backend.sent == 40
    assert whole.sent == 36
    np.testing.assert_allclose(some.outputs, whole.outputs[indices], atol=1e-5)
    np.testing.assert_array_equal(some.labels, dataset.labels[indices])
    assert signals.collect_signals(Target(backend), dataset, np.array([39, 0]), cache=tmp_path).sent == 0


def test_without_a_cache_nothing_is_written(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = Counting()
    signals.collect_signals(Target(backend), dataset)
    signals.collect_signals(Target(backend), dataset)
    assert backend.sent == 80
    assert list(tmp_path.iterdir()) == []


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:10]),
    ],
    ids=["flipped bit", "truncated", "empty", "digest only in part"],
)
def test_a_damaged_block_is_noticed_and_computed_again(dataset, tmp_path, small_blocks, damage, caplog):
    backend = Counting()
    first = signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    damage(blocks(tmp_path)[1])
    again = signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert again.sent == 16, "only the damaged block"
    assert "damaged" in caplog.text
    np.testing.assert_allclose(again.outputs, first.outputs, atol=1e-5)
    assert signals.collect_signals(Target(backend), dataset, cache=tmp_path).sent == 0


def test_what_was_answered_before_a_failure_is_kept(dataset, tmp_path):
    backend = Counting()
    backend.fail_at = 24
    with pytest.raises(TargetError, match="gone"):
        signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    backend.fail_at = None
    resumed = signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert resumed.sent == 16
    assert backend.sent == 40
    np.testing.assert_allclose(resumed.outputs, signals.collect_signals(Target(backend), dataset).outputs, atol=1e-5)


def test_what_was_answered_before_the_cap_is_kept(dataset, tmp_path):
    backend = Counting()
    with pytest.raises(QueryBudgetExceeded):
        signals.collect_signals(Target(backend, query_counter=QueryCounter(cap=20)), dataset, cache=tmp_path)
    assert backend.sent == 16
    assert signals.collect_signals(Target(backend), dataset, cache=tmp_path).sent == 24


def test_unique_queries_count_equal_images_once(tmp_path):
    dataset = make_dataset()
    dataset.images[20:] = dataset.images[:20]
    collected = signals.collect_signals(Target(Counting()), dataset, cache=tmp_path)
    assert (collected.queries.total, collected.queries.unique) == (40, 20)
    assert signals.collect_signals(Target(Counting()), dataset, cache=tmp_path).queries == collected.queries


def test_class_counts_must_agree(dataset, tmp_path):
    backend = Counting(classes=7)
    with pytest.raises(TargetError, match="7 classes; toy has 4"):
        signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert backend.sent == 8, "noticed at the first batch"
    assert blocks(tmp_path) == []


def test_no_records_is_an_error(dataset):
    with pytest.raises(TargetError, match="No records"):
        signals.collect_signals(Target(Counting()), dataset, np.empty(0, np.int64))


def test_not_finite_outputs_are_not_cached(dataset, tmp_path):
    backend = Counting()
    backend.layer.bias.data[0] = torch.nan
    with pytest.raises(TargetError, match="not finite"):
        signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert blocks(tmp_path) == []


def test_keys_hold_what_decides_the_outputs(dataset):
    key = signals.make_cache_key(Target(Counting()), dataset)
    other = Counting()
    other.checksum = "abd"
    different = {
        "weights": signals.make_cache_key(Target(other), dataset),
        "images": signals.make_cache_key(Target(Counting()), make_dataset(seed=1)),
        "preprocessing": signals.make_cache_key(
            Target(Counting(), preprocessing=Preprocessing(mean=(0.5,), std=(0.5,))), dataset
        ),
        "precision": signals.make_cache_key(Target(Counting(), precision="bf16"), dataset),
    }
    assert len({key, *different.values()}) == 5
    assert signals.make_cache_key(Target(Counting(), head="probabilities"), dataset) == key, (
        "what the head means may change"
    )
    assert signals.make_cache_key(Target(Counting()), make_dataset()) == key


def test_a_corrected_head_needs_no_new_queries(dataset, tmp_path):
    backend = Counting()
    signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    corrected = signals.collect_signals(Target(backend, head="log-probabilities"), dataset, cache=tmp_path)
    assert corrected.sent == 0
    assert corrected.head == "log-probabilities"


def test_progress_ends_at_the_total(dataset, tmp_path, small_blocks):
    seen = []
    signals.collect_signals(
        Target(Counting()), dataset, cache=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (40, 40)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


SLOW = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    from test_signals import Counting, make_dataset
    from securitynet.models.targets import signals
    from securitynet.models.targets.target import Target
    signals.BLOCK, signals.SAVE_SECONDS = 16, 0.0

    class Slow(Counting):
        batch_size = 4
        def outputs(self, inputs):
            time.sleep(0.05)
            return super().outputs(inputs)

    signals.collect_signals(Target(Slow()), make_dataset(), cache=Path({cache!r}))
"""


def test_after_sigkill_the_rest_is_asked_and_the_outputs_are_the_same(dataset, tmp_path, small_blocks):
    script = textwrap.dedent(SLOW).format(folder=str(Path(__file__).parent), cache=str(tmp_path))
    with start_script(script) as process:
        deadline = time.monotonic() + 60
        while len(blocks(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    backend = Counting()
    resumed = signals.collect_signals(Target(backend), dataset, cache=tmp_path)
    assert 0 < resumed.sent <= 40 - 16, "the first block was complete"
    assert backend.sent == resumed.sent
    np.testing.assert_allclose(resumed.outputs, signals.collect_signals(Target(Counting()), dataset).outputs, atol=1e-5)
