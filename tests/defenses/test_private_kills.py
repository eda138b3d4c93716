"""`securitynet train --defense dp-sgd`, really killed: nothing is lost, nothing is spent twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from opacus.accountants import RDPAccountant

from securitynet.defenses.base import defended_training
from securitynet.defenses.dp_sgd import RECIPE, DpSgd
from securitynet.models.train_config import TrainConfig

EPOCHS = 40


def train(out):
    command = [sys.executable, "-m", "securitynet.cli.main", "train", "simple-cnn", "--dataset", "digits"]
    command += ["--limit", "400", "--epochs", str(EPOCHS), "--defense", "dp-sgd", "--device", "cpu", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path):
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    output = train(whole).communicate(timeout=240)[0]
    assert whole.exists(), output
    checkpoint, kills = killed.with_suffix(".checkpoint"), 0
    for _ in range(4):
        process, before = train(killed), checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0) == before:
            time.sleep(0.002)
        process.kill()  # SIGKILL, at some moment after an epoch was stored
        process.communicate()
        kills += process.returncode == -9
    assert kills >= 3 and not killed.with_suffix(".json").exists()
    output = train(killed).communicate(timeout=240)[0]
    assert "Resumed after epoch" in output
    one, other = (json.loads(path.with_suffix(".json").read_text()) for path in (whole, killed))
    for facts in (one, other):
        facts["history"].pop("seconds")
    assert one == other  # history, epsilon and the checksum of the weights
    assert whole.read_bytes() == killed.read_bytes()
    privacy = other["defense"]["privacy"]
    accountant = RDPAccountant()
    for _ in range(EPOCHS * round(100 / 64)):
        accountant.step(noise_multiplier=privacy["noise_multiplier"], sample_rate=64 / 100)
    assert privacy["epsilon"] == pytest.approx(accountant.get_epsilon(delta=1e-5), rel=1e-9)
    assert privacy["steps"] == EPOCHS * round(100 / 64) and 7.9 < privacy["epsilon"] <= 8


def test_what_is_not_stated_of_the_recipe_is_as_it_suits_the_defense():
    def recipe(**stated):
        config = TrainConfig(architecture="simple-cnn", dataset="digits", defense="dp-sgd", **stated)
        named, defense = defended_training(config)
        assert defended_training(named)[0].recipe == named.recipe
        assert isinstance(defense, DpSgd)
        return named.recipe

    plain = TrainConfig(architecture="simple-cnn", dataset="digits")
    assert recipe() == plain.recipe.model_copy(update=RECIPE)
    assert recipe(epochs=7, schedule="cosine") == plain.recipe.model_copy(
        update={**RECIPE, "epochs": 7, "schedule": "cosine"}
    )
    assert recipe(optimizer="adam").epochs == plain.epochs  # its learning rates are others
    assert recipe(configure=("dp-sgd.preset=celeba-1",)) == plain.recipe  # the paper's
    assert defended_training(plain)[0].recipe == plain.recipe
