"""`securitynet train --defense dp-sgd`, really killed: nothing is lost, nothing is spent twice."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from securitynet.attacks.membership.lira import LiRA
from securitynet.defenses.base import resolve_defense
from securitynet.defenses.dp_sgd import RECIPE, DpSgd
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import ShadowPlan
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.config import TrainConfig

SCRIPT = """
import os, signal, sys, time
import torch
from pathlib import Path
from securitynet.cli.main import main
import securitynet.cli.train, securitynet.models.store.train_target, opacus, sklearn.datasets
torch.set_num_threads(1)

def train(out):
    pid = os.fork()  # a process of its own, that need not import everything again
    if pid == 0:
        log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        sys.argv = ["securitynet", "train", "simple-cnn", "--dataset", "digits", "--limit", "400", "--epochs", "EPOCHS"]
        sys.argv += ["--defense", "dp-sgd", "--device", "cpu", "--out", str(out)]
        try:
            main()
        finally:
            os._exit(0)
    return pid

def stamp(path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0

whole, killed = Path(sys.argv[1]), Path(sys.argv[2])
os.waitpid(train(whole), 0)
checkpoint, kills = killed.with_suffix(".checkpoint"), 0
for _ in range(KILLS):
    before, pid = stamp(checkpoint), train(killed)
    done = 0
    while not done and stamp(checkpoint) == before:
        done = os.waitpid(pid, os.WNOHANG)[0]
        time.sleep(0.001)
    if not done:
        os.kill(pid, signal.SIGKILL)  # at some moment after a further epoch was stored
        kills += os.waitpid(pid, 0)[1] == signal.SIGKILL
assert not killed.with_suffix(".json").exists()
os.waitpid(train(killed), 0)
print(kills)
"""


@pytest.mark.slow
@pytest.mark.parametrize("epochs, kills", [(12, 2), (40, 4)])
def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path, epochs, kills):
    from opacus.accountants import RDPAccountant  # here, as every process that collects the tests would import it

    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    command = [
        sys.executable,
        "-c",
        SCRIPT.replace("EPOCHS", str(epochs)).replace("KILLS", str(kills)),
        str(whole),
        str(killed),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    log = killed.with_suffix(".log").read_text()
    assert int(ran.stdout) == kills, log
    assert "Resumed after epoch" in log
    one, other = (json.loads(path.with_suffix(".json").read_text()) for path in (whole, killed))
    for facts in (one, other):
        facts["history"].pop("seconds")
        facts.pop("digest")  # which covers the seconds
    assert one == other  # history, epsilon and the checksum of the weights
    assert whole.read_bytes() == killed.read_bytes()
    privacy = other["defense"]["privacy"]
    accountant = RDPAccountant()
    steps = epochs * round(190 / 64)  # of 190 members: a quarter of 400 and 360 records
    for _ in range(steps):
        accountant.step(noise_multiplier=privacy["noise_multiplier"], sample_rate=64 / 190)
    assert privacy["epsilon"] == pytest.approx(accountant.get_epsilon(delta=1e-5), rel=1e-9)
    assert privacy["steps"] == steps and 7.9 < privacy["epsilon"] <= 8


def test_what_is_not_stated_of_the_recipe_is_as_it_suits_the_defense():
    def recipe(**stated):
        config = TrainConfig(architecture="simple-cnn", dataset="digits", defense="dp-sgd", **stated)
        named, defense = resolve_defense(config)
        assert resolve_defense(named)[0].chosen_recipe == named.chosen_recipe
        assert isinstance(defense, DpSgd)
        return named.chosen_recipe

    plain = TrainConfig(architecture="simple-cnn", dataset="digits")
    assert recipe() == plain.chosen_recipe.model_copy(update=RECIPE)
    assert recipe(epochs=7, schedule="cosine") == plain.chosen_recipe.model_copy(
        update={**RECIPE, "epochs": 7, "schedule": "cosine"}
    )
    assert recipe(optimizer="adam").epochs == plain.epochs  # its learning rates are others
    assert recipe(configure=("dp-sgd.preset=celeba-1",)) == plain.chosen_recipe  # the paper's
    assert resolve_defense(plain)[0].chosen_recipe == plain.chosen_recipe


@pytest.mark.slow
def test_lira_is_at_chance_where_it_was_well_above(digits, tmp_path):
    """The strongest attack on the undefended model, in a natural setting: the dataset's own parts, the defaults.

    For seed 0; over five seeds the interval holds 0.5 in three (docs/defenses.md): something is left at epsilon 8.
    """
    found = {}
    for name, defense, recipe in (("plain", None, {"epochs": 60}), ("private", DpSgd(), {})):
        out = tmp_path / f"{name}.safetensors"
        target = train_target("simple-cnn", digits, split="public", out=out, defense=defense, device="cpu", **recipe)
        trained = read_target_record(out)
        data = TrialData(digits, restore_splits(trained, digits), trained, defense=defense)
        attack = LiRA(shadows=ShadowPlan(count=16))
        context = Context(cache=tmp_path, device="cpu")
        measured = attack(target, data, context, attack.threat_models[0]).measurements(level=0.95, fprs=(0.1,), seed=0)
        found[name] = next(one for one in measured if one.name == "auc")
        assert trained.test_accuracy > 0.9
    assert trained.defense.privacy.epsilon == pytest.approx(8, abs=0.02)
    assert found["plain"].low > 0.505
    assert found["private"].low <= 0.5 <= found["private"].high
