"""A training that is interrupted, in whatever way, ends with the same weights, bit for bit."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from command_line import run_script, start_script
from securitynet.datasets import load, splits
from securitynet.errors import ModelError
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState
from securitynet.models.training.fit import History, fit
from securitynet.models.training.recipe import Recipe

DIGITS = load("digits")
MEMBERS = splits.four_way(DIGITS).members[::4]
RECIPE = Recipe(epochs=6, augment="crop-flip", learning_rate=0.02)


class Interrupted(Exception):
    """Stands for whatever ends a process between two epochs."""


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(256, 10),
        )


def run(recipe: Recipe = RECIPE, checkpoint: Path | None = None, stop: int | None = None, notes: list | None = None):
    """A network trained on digits; the run ends with `Interrupted` after ``stop`` epochs."""

    def progress(done: int, total: int, history: History) -> None:
        assert (done, total) == (history.epochs_run, recipe.epochs)
        if done == stop:
            raise Interrupted

    module = network()
    history = fit(
        module,
        DIGITS.images,
        DIGITS.labels[MEMBERS],
        recipe,
        indices=MEMBERS,
        checkpoint=checkpoint,
        device="cpu",
        progress=progress,
        note=(notes if notes is not None else []).append,
    )
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}, history


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr("securitynet.models.training.checkpoints._SHARE_OF_TIME", float("inf"))


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adam", "learning_rate": 1e-3}, {"patience": 2, "schedule": "constant", "epochs": 12}]
)
def test_interrupted_after_any_epoch_the_weights_are_the_same(tmp_path, changes):
    recipe = Recipe(**{**RECIPE.model_dump(), **changes})
    expected, history = run(recipe)
    for stop in range(1, history.epochs_run + 1):
        checkpoint, notes = tmp_path / f"{stop}.checkpoint", []
        with pytest.raises(Interrupted):
            run(recipe, checkpoint, stop)
        torch.rand(stop)  # the global random state must not matter
        resumed, again = run(recipe, checkpoint, notes=notes)
        assert notes == [f"Resumed after epoch {stop} of {recipe.epochs}."]
        assert resumed == expected
        assert again.model_dump(exclude={"seconds"}) == history.model_dump(exclude={"seconds"})


def test_a_finished_run_is_not_run_again(tmp_path):
    expected, _ = run(checkpoint=tmp_path / "c")
    weights, history = run(checkpoint=tmp_path / "c", stop=RECIPE.epochs)  # any epoch of it would raise
    assert weights == expected
    assert history.epochs_run == RECIPE.epochs


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 0.01}, {"epochs": 7}])
def test_a_checkpoint_of_another_run_is_not_used(tmp_path, change):
    other = Recipe(**{**RECIPE.model_dump(), **change})
    with pytest.raises(Interrupted):
        run(other, tmp_path / "c", 2)
    notes: list[str] = []
    weights, _ = run(checkpoint=tmp_path / "c", notes=notes)
    assert weights == run()[0]
    assert "another run" in notes[0]


def test_other_data_and_other_initial_weights_are_another_run(tmp_path):
    with pytest.raises(Interrupted):
        run(checkpoint=tmp_path / "c", stop=2)
    labels = DIGITS.labels[MEMBERS]
    changed = DIGITS.images.clone()
    changed[int(MEMBERS[0]), 0, 0, 0] ^= 1
    other = network()
    with torch.no_grad():
        other[5].bias[0] += 1
    for module, images, values in (
        (network(), changed, labels),
        (network(), DIGITS.images, labels[::-1].copy()),
        (other, DIGITS.images, labels),
    ):
        notes: list[str] = []
        copy = tmp_path / "copy"
        copy.write_bytes((tmp_path / "c").read_bytes())
        fit(module, images, values, RECIPE, indices=MEMBERS, checkpoint=copy, device="cpu", note=notes.append)
        assert "another run" in notes[0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path, damage):
    path, notes = tmp_path / "c", []
    with pytest.raises(Interrupted):
        run(checkpoint=path, stop=4)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-7], "flipped": content, "empty": b""}[damage])
    weights, _ = run(checkpoint=path, notes=notes)
    assert weights == run()[0]
    assert notes == ["The checkpoint c is damaged and is ignored.", "Resumed after epoch 3 of 6."]


def test_a_diverged_epoch_is_not_stored(tmp_path):
    recipe = Recipe(epochs=5, learning_rate=1e30, schedule="constant", batch_size=16)
    with pytest.raises(ModelError, match="diverged"):
        run(recipe, tmp_path / "c")
    assert not (tmp_path / "c").exists()  # it was the first epoch
    notes: list[str] = []
    with pytest.raises(ModelError, match="diverged"):  # and the next run does not resume from a broken state
        run(recipe, tmp_path / "c", notes=notes)
    assert notes == []


def test_a_checkpoint_with_a_flipped_bit_is_not_used(tmp_path):
    notes = []
    file = CheckpointFile(tmp_path / "c", notes.append)
    for epoch in (1, 2):
        file.write(TrainingState("run", epoch, {"w": torch.ones(100)}, {}, "{}"))
    content = bytearray(file.path.read_bytes())
    content[len(content) // 2] ^= 1
    file.path.write_bytes(content)
    state = file.read("run")
    assert state is not None and state.epochs_done == 1, "the one before it"
    assert len(notes) == 1 and "damaged" in notes[0]


def test_writing_takes_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr("securitynet.models.training.checkpoints._SHARE_OF_TIME", 0.05)
    now = [100.0]
    monkeypatch.setattr("securitynet.models.training.checkpoints.time.monotonic", lambda: now[0])
    file = CheckpointFile(tmp_path / "c", print)
    assert file.due()  # the first epoch is always stored

    def slow_save(*_args: object) -> None:
        now[0] += 2.0

    monkeypatch.setattr("securitynet.models.training.checkpoints.torch.save", slow_save)
    file.write(TrainingState("f", 1, {}, {}, "{}"))
    now[0] += 39
    assert not file.due()
    now[0] += 2
    assert file.due()


RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from securitynet.datasets import load
from securitynet.models.store.train_target import train_target
digits, epochs, out = load("digits"), int(sys.argv[1]), Path(sys.argv[2])
options = {"augment": "crop-flip"}
if sys.argv[3] == "airbench-small":
    options = {"recipe": "fast", "batch_size": 64, "learning_rate": 0.1, "precision": "bf16"}
train_target(sys.argv[3], digits, epochs=epochs, out=out, note=print, **options)
"""


@pytest.mark.parametrize(
    ("architecture", "times"),
    [("simple-cnn", 3), ("airbench-small", 2), pytest.param("simple-cnn", 6, marks=pytest.mark.slow)],
)
def test_sigkill_at_random_moments(tmp_path, architecture, times):
    """Weights, average and whitening of the fast recipe come back as they were, too."""
    whole, killed, moments = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors", random.Random(0)
    assert run_script(RUN, 8 * times, whole, architecture) == 0
    checkpoint = killed.with_suffix(".checkpoint")
    kills = 0
    for _ in range(times):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        with start_script(RUN, 8 * times, killed, architecture) as run:
            while run.is_running() and not killed.with_suffix(".json").exists():
                # Some progress first, so that the run gets on; then at any moment, also while it writes.
                if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                    time.sleep(moments.uniform(0, 0.1))
                    break
                time.sleep(0.002)
            kills += run.kill() == -signal.SIGKILL
    assert kills >= 2, "the runs ended before they could be killed"
    assert run_script(RUN, 8 * times, killed, architecture) == 0
    expected, resumed = load_file(whole), load_file(killed)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    facts = [json.loads(path.with_suffix(".json").read_text()) for path in (whole, killed)]
    for values in facts:
        values["history"].pop("seconds")
        del values["digest"]  # it covers the seconds
    assert facts[0] == facts[1]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["killed.json", "killed.safetensors", "whole.json", "whole.safetensors"]
