"""The examples of the docs work as written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from securitynet.methods.context import Context
from securitynet.methods.data import TrialData

DOCS = Path(__file__).parents[1] / "docs"


def test_the_attack_of_the_guide_to_extending(overfitted, tmp_path):
    target, splits, dataset = overfitted
    (example,) = re.findall(
        r"```python\n(# src/securitynet/attacks.*?)```", (DOCS / "extend.md").read_text(), re.DOTALL
    )
    names: dict = {}
    exec(compile(example, "extend.md", "exec"), names)
    attack = names["Margin"]()
    output = attack(target, TrialData(dataset, splits), Context(cache=tmp_path), attack.threat_models[0])
    assert np.isfinite(output.scores).all()
    auc = next(m for m in output.measurements(level=0.95, fprs=(0.1,), seed=0) if m.name == "auc")
    assert auc.low > 0.6


def backend_example() -> str:
    """The code of the recipe for a kind of model."""
    (example,) = re.findall(
        r"```python\n(# src/securitynet/models/targets/backends.*?)```", (DOCS / "extend.md").read_text(), re.DOTALL
    )
    return example.partition("\n")[2]


@pytest.mark.slow
def test_the_backend_of_the_guide_to_extending(tmp_path, digits):
    """As a plug-in of another package, from the reference to answers."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "nearest_mean.py").write_text(backend_example())
    metadata = tmp_path / "my_package-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    groups = re.findall(r"```toml\n(.*?)```", (DOCS / "extend.md").read_text(), re.DOTALL)
    (group,) = re.findall(r'securitynet\.backends"\]\n(.*?)\n\n', groups[0], re.DOTALL)
    (metadata / "entry_points.txt").write_text("[securitynet.backends]\n" + group.replace('"', "") + "\n")
    train = digits.parts["train"]
    images = digits.batch(train).numpy() / 255
    means = np.stack([images[digits.labels[train] == label].mean(0) for label in range(10)])
    np.save(tmp_path / "digits.npy", means)
    code = (
        "import securitynet; digits = securitynet.load_dataset('digits'); "
        "target = securitynet.load_target('digits.npy', dataset=digits, normalize='none'); "
        "test = digits.parts['test']; "
        "labels = target.logits(digits.batch(test)).argmax(1).numpy(); "
        "print(target.reference, target.access.value, (labels == digits.labels[test]).mean())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    reference, access, accuracy = done.stdout.split()
    assert (reference, access) == ("means:digits.npy", "black-box")
    assert float(accuracy) > 0.85  # scikit-learn's NearestCentroid is right on about nine in ten


def test_the_backend_of_the_guide_passes_the_linter(tmp_path):
    path = tmp_path / "nearest_mean.py"
    path.write_text(backend_example())
    root = DOCS.parent
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", str(root / "pyproject.toml"), str(path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_backend_of_the_guide_passes_the_type_checker(tmp_path):
    path = tmp_path / "nearest_mean.py"
    path.write_text(backend_example())
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(DOCS.parent / "pyproject.toml"), str(path)],
        cwd=DOCS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
