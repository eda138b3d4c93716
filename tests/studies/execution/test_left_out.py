"""A study leaves out targets that fail a check, with the reason, where its file says so."""

from __future__ import annotations

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

ATTACK = '[[attacks]]\nname = "noop"\nthreat_models = ["black-box/none"]\n[attacks.grid]\nnumber = [1, 2]\n'
MODELS = '[[models]]\nreference = ["python:a.py:make", "python:good.py:make"]'


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
    assert set(left_out["reason"]) == {
        "the target fails the check of its accuracy, which is hardly better than chance"
    }
    assert box.run().finished_now == 0
    path.write_text(plain)  # failed checks are only noted: what was left out runs now, and nothing else
    assert box.run().ok == 4
    assert len(box.log("ran")) == 4
