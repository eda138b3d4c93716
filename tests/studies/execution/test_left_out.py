"""What studies leave out: targets that fail a check, and what strangers need not see of results."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetStore
from securitynet.studies.execution.inspect import merge_folders

NEAREST_MEAN = """
import numpy as np
import torch
from sklearn.datasets import load_digits

def make():
    digits = load_digits()
    means = np.stack([digits.data[digits.target == label].mean(axis=0) for label in range(10)]) / 16
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    weight = torch.tensor(means, dtype=torch.float32)
    network[1].weight.data, network[1].bias.data = 2 * weight, -weight.square().sum(1)
    return network
"""
"""Predicts the class with the nearest mean: far better than chance without training."""

TWO_CLASSES = """
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
"""

ATTACK = '[[attacks]]\nname = "noop"\nthreat_models = ["black-box/none"]\n[attacks.grid]\nnumber = [1, 2]\n'
MODELS = '[[models]]\nreference = ["python:a.py:make", "python:good.py:make"]'


def save_image(path, level):
    Image.fromarray(np.full((8, 8), level, dtype=np.uint8) + np.eye(8, dtype=np.uint8)).save(path)


def test_targets_at_chance_are_left_out_with_the_reason(box):
    (box.folder / "good.py").write_text(NEAREST_MEAN)
    path = box.write(ATTACK, models=MODELS)
    plain = path.read_text()
    path.write_text(f'on_mismatch = "skip"\n{plain}')
    status = box.run()
    assert (status.ok, status.skipped, status.failed) == (2, 2, 0)
    assert len(box.log("ran")) == 2
    rows = box.table()
    left_out = rows[rows["status"] == "skipped"]
    assert set(left_out["model"]) == {"python:a.py:make"}
    assert set(left_out["reason"]) == {"the target fails the check of its accuracy, which is hardly better than chance"}
    assert box.run().finished_now == 0
    path.write_text(plain)  # failed checks are only noted: what was left out runs now, and nothing else
    assert box.run().ok == 4
    assert len(box.log("ran")) == 4


@pytest.mark.slow
def test_results_for_strangers_have_all_values_and_no_scores_or_paths(box, tmp_path):
    images = box.folder / "images"
    for part, label in ((part, label) for part in ("train", "test") for label in "ab"):
        folder = images / part / label
        folder.mkdir(parents=True)
        for number in range(8):
            save_image(folder / f"{part}{number}.png", number + 20 * (label == "b"))
    path = box.write(
        '[[attacks]]\nname = ["confidence", "noop"]\n', models='[[models]]\nreference = "python:two.py:make"'
    )
    path.write_text(path.read_text().replace('dataset = "digits"', 'dataset = "folder:images"'))
    (box.folder / "two.py").write_text(TWO_CLASSES)
    box.run()
    merged = merge_folders([str(box.out)], str(tmp_path / "shared"), box.notes.append, redact=True)
    own, theirs = ({trial.id: trial for trial in TrialStore(folder)} for folder in (box.out, tmp_path / "shared"))
    assert merged.trials == len(own) == len(theirs) >= 2 and not merged.damaged
    assert any(trial.arrays for trial in own.values()) and not any(trial.arrays for trial in theirs.values())
    assert all(theirs[key].measurements == own[key].measurements for key in own)
    assert len(list(StudyTargetStore(tmp_path / "shared"))) == 1
    texts = [file.read_text() for file in (tmp_path / "shared").rglob("*.json")]
    assert not any(str(tmp_path) in text for text in texts)
    assert not list((tmp_path / "shared").rglob("*.npz"))
    assert any('"folder:images"' in text for text in texts)
