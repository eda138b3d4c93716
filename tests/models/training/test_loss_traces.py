"""Loss traces: losses by hand, the same weights with and without, an interruption, and files of other trainings."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from securitynet.datasets import load, splits
from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.dp_sgd import PrivateSteps
from securitynet.models.training.fit import fit
from securitynet.models.training.loss_traces import LossTraces, locate_loss_traces, read_loss_traces
from securitynet.models.training.recipe import Recipe

DIGITS = load("digits")
RECIPE = Recipe(epochs=4, schedule="constant", augment="flip")
RECORDS = splits.four_way(DIGITS).members[:100]


def train(traces=None, checkpoint=None, progress=None, procedure=None):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10))
    fit(
        module,
        DIGITS.images,
        DIGITS.labels[RECORDS],
        RECIPE,
        indices=RECORDS,
        traces=traces,
        checkpoint=checkpoint,
        progress=progress,
        procedure=procedure,
        device="cpu",
    )
    return module


def test_the_last_epoch_holds_the_losses_of_the_final_network():
    traces = LossTraces.start()
    module = train(traces)
    assert traces.losses.shape == (4, 100)
    assert traces.records.tolist() == RECORDS.tolist()
    with torch.no_grad():
        logits = module(DIGITS.batch(RECORDS).float() / 255)
    expected = functional.cross_entropy(logits, torch.from_numpy(DIGITS.labels[RECORDS]), reduction="none")
    assert traces.losses[-1] == pytest.approx(expected.numpy(), abs=1e-6)
    assert traces.losses[-1].mean() < traces.losses[0].mean()


def test_the_weights_are_the_same_with_and_without():
    assert torch.equal(train(LossTraces.start())[2].weight, train()[2].weight)


def test_they_are_kept_under_dp_sgd_too():
    traces = LossTraces.start()
    plain, kept = (
        train(procedure=PrivateSteps(noise_multiplier=1.0, clipping_bound=1.0)),
        train(traces, procedure=PrivateSteps(noise_multiplier=1.0, clipping_bound=1.0)),
    )
    assert torch.equal(kept[2].weight, plain[2].weight)
    assert traces.losses.shape == (4, 100) and np.isfinite(traces.losses).all()


def test_an_interrupted_run_has_the_losses_of_all_epochs(tmp_path):
    whole = LossTraces.start()
    train(whole)

    def stop(done, total, history):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(LossTraces.start(), tmp_path / "checkpoint", stop)
    resumed, epochs = LossTraces.start(), []
    train(resumed, tmp_path / "checkpoint", lambda done, total, history: epochs.append(done))
    assert epochs[-1] == 4 and len(epochs) < 4, "continued from the checkpoint"
    assert np.array_equal(resumed.losses, whole.losses)


def test_a_run_that_kept_no_losses_is_not_continued_by_one_that_does(tmp_path):
    train(None, tmp_path / "checkpoint")
    traces = LossTraces.start()
    train(traces, tmp_path / "checkpoint")
    assert traces.losses.shape == (4, 100)


def test_they_lie_beside_the_weights_and_are_those_of_this_training(tmp_path):
    out = tmp_path / "m.safetensors"
    settings = {"epochs": 2, "device": "cpu", "out": out}
    train_target("simple-cnn", DIGITS, **settings)
    plain = out.read_bytes()
    with pytest.raises(ConfigurationError, match="were not kept"):
        train_target("simple-cnn", DIGITS, keep_losses=True, **settings)
    train_target("simple-cnn", DIGITS, keep_losses=True, overwrite=True, **settings)
    assert out.read_bytes() == plain, "the same weights"
    record = read_target_record(out)
    traces = read_loss_traces(out, record.key)
    assert traces.losses.shape == (2, len(traces.records))
    assert np.array_equal(traces.records, restore_splits(record, DIGITS).members)
    assert read_loss_traces(out, "of another training") is None
    train_target("simple-cnn", DIGITS, keep_losses=True, **settings)  # complete: nothing is trained
    locate_loss_traces(out).write_bytes(b"no such file")
    with pytest.raises(ModelError, match="damaged"):
        read_loss_traces(out, record.key)
