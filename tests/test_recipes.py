"""The examples of the guide to extending pass the checks that this repository's own code must pass, as printed."""

import hashlib
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from securitynet import testing
from securitynet.analysis import frames

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE, re.DOTALL))


@pytest.fixture
def load(monkeypatch):
    """Executes the example whose file has this name."""

    def load_example(name):
        (path,) = [path for path in EXAMPLES if Path(path).name == f"{name}.py"]
        module = type(sys)(path.removeprefix("src/").removesuffix(".py").replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(EXAMPLES[path], path, "exec"), vars(module))
        return module

    return load_example


@pytest.fixture
def folder(tmp_path):
    """A folder with the examples in files, under the names that the guide gives them."""
    for path, text in EXAMPLES.items():
        file = tmp_path / path.replace("/", "__")
        file.write_text(text, encoding="utf-8")
    return tmp_path


def test_all_python_of_the_guide_names_its_file():
    assert len(EXAMPLES) == GUIDE.count("```python") >= 8


@pytest.mark.parametrize("path", EXAMPLES)
def test_examples_pass_ruff(path):
    for command in (["check"], ["format", "--check"]):
        options = ["--no-cache", "--stdin-filename", path, "-"]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options],
            cwd=ROOT,
            input=EXAMPLES[path],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_examples_pass_mypy(folder):
    files = [str(file) for file in folder.glob("src__*.py")]  # the test of a plug-in imports what is not installed
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MYPYPATH": "src"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_attack_keeps_the_contract_as_the_guide_tests_it(load, monkeypatch):
    package, attack = type(sys)("my_package"), type(sys)("my_package.attack")
    attack.Mine = load("margin").Margin
    monkeypatch.setitem(sys.modules, "my_package", package)
    monkeypatch.setitem(sys.modules, "my_package.attack", attack)
    load("test_mine").test_mine_fulfils_the_contract()


def test_detector_keeps_the_contract(load):
    testing.check_detector(load("noise_vote").NoiseVote(images=100), case=testing.make_overfitted_case())


def test_detector_repeats_its_seed_and_follows_its_votes(load):
    votes = load("noise_vote").NoiseVotes(np.asarray([3, 3, 3, 1]))
    (share,) = votes.measurements(level=0.95, fprs=(), seed=0)
    assert share.value == 0.75 and share.n == 4


def test_defense_keeps_the_contract(load):
    module = load("floor")
    testing.check_defense(module.Floor(), case=testing.make_overfitted_case())
    answers = module.Floored(smallest=0.2).change(torch.tensor([[0.7, 0.2, 0.1]]))
    torch.testing.assert_close(answers, torch.tensor([[0.7, 0.2, 0.0]]))


def test_dataset_keeps_the_contract(load, tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 1, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(30) % 3, is_train=np.arange(30) < 20)
    testing.check_dataset(load("numpy_file").load_numpy_file, tmp_path)


def test_architecture_is_traceable_and_emits_logits(load):
    network = load("two_layers").two_layers(10, channels=1, image_size=8)
    assert torch.fx.symbolic_trace(network)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_figure_draws_what_models_have(load):
    rows = [
        {"case": f"model {n}", "attack": "target", "measure": "test_accuracy", "value": 0.5 + n / 20} for n in range(8)
    ]
    drawn = load("accuracies").ACCURACIES.make(frames.tidy(rows))
    assert "8 models" in drawn.caption and len(drawn.data) == 8


def test_executor_logs_what_it_returns(load, caplog, monkeypatch):
    from securitynet.studies.execution.executors import local

    module = load("logged")
    event = type("Event", (), {"slot": 2})()
    monkeypatch.setattr(local.LocalExecutor, "wait", lambda self, seconds: [event])
    executor = object.__new__(module.LoggedExecutor)
    with caplog.at_level(logging.INFO):
        assert executor.wait(0) == [event]
    assert "slot 2: Event" in caplog.text


# What the checks must notice


class _Backend(testing.OutputsOnly):
    """Class scores of the pixels, which a flaw spoils."""

    def __init__(self, flaw=None):
        self.reference, self.checksum, self.flaw = "pixels", hashlib.sha256(b"pixels").hexdigest(), flaw
        self.count = 0

    def outputs(self, inputs):
        self.count += 1
        outputs = inputs.flatten(1)[:, :3].clone()
        if self.flaw == "batch":
            outputs = outputs - outputs.mean(dim=0)
        if self.flaw == "random":
            outputs = outputs + self.count
        if self.flaw == "double":
            outputs = outputs.double()
        if self.flaw == "nan":
            outputs[0, 0] = float("nan")
        return outputs


def test_a_good_backend_passes():
    testing.check_backend(_Backend(), torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("flaw", ["batch", "random", "double", "nan"])
def test_a_flawed_backend_is_noticed(flaw):
    with pytest.raises(testing.ContractError):
        testing.check_backend(_Backend(flaw), torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)))


def test_an_attack_that_guesses_is_noticed(load):
    margin = load("margin").Margin

    class Guess(margin):
        def score(self, signals):
            return np.random.default_rng(0).random(len(signals))

    with pytest.raises(testing.ContractError, match="auc"):
        testing.check_attack(Guess())


def test_an_attack_that_scores_members_lower_is_told_what_reverses_it(load):
    margin = load("margin").Margin

    class Loss(margin):
        def score(self, signals):
            return -super().score(signals)

    with pytest.raises(testing.ContractError, match=r"members score lower.*opposite sign"):
        testing.check_attack(Loss())


def test_an_attack_that_ignores_its_seed_is_noticed(load):
    margin = load("margin").Margin

    class Drifting(margin):
        def score(self, signals):
            return super().score(signals) + 1e-3 * np.random.random(len(signals))

    with pytest.raises(testing.ContractError, match="scores differs"):
        testing.check_attack(Drifting())


def test_a_detector_that_hides_its_queries_is_noticed(load):
    module = load("noise_vote")

    class Hiding(module.NoiseVote):
        def run(self, target, data, context):
            return super().run(target, data, type(context)(seed=context.seed))

    with pytest.raises(testing.ContractError, match="counted 0"):
        testing.check_detector(Hiding(images=50), case=testing.make_overfitted_case())


def test_a_defense_that_looks_at_the_batch_is_noticed(load):
    module = load("floor")

    class Mixing(module.Floored):
        def change(self, posteriors):
            return 0.9 * posteriors + 0.1 * posteriors.mean(dim=0)

    class Mix(module.Floor):
        def interface(self, target, data, context):
            return Mixing(smallest=0.05)

    with pytest.raises(testing.ContractError, match="rest of its batch"):
        testing.check_defense(Mix(), case=testing.make_overfitted_case())
