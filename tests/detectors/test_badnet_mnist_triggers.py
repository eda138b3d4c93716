"""A public backdoored model, whole command: Neural Cleanse flags class 1 and recovers the corner patch."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest

from mnist import read_mnist

pytestmark = pytest.mark.real_data

FACTORY = """
from torch import nn

def badnet():
    def block(*layers):
        return nn.Sequential(*layers)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = block(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AvgPool2d(2))
            self.conv2 = block(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2))
            self.fc1 = block(nn.Linear(512, 512), nn.ReLU())
            self.fc2 = block(nn.Linear(512, 10), nn.Softmax(dim=1))

        def forward(self, images):
            return self.fc2(self.fc1(self.conv2(self.conv1(images)).flatten(1)))

    return Net()
"""


@pytest.mark.slow
def test_neural_cleanse_flags_class_1_and_recovers_the_corner_patch(shared_data, tmp_path, run_cli):
    pixels, labels = read_mnist()
    root = tmp_path / "mnist"
    root.mkdir()
    for part, rows in (("train", slice(4000)), ("t10k", slice(4000, None))):
        for what, array in (("images", pixels[rows]), ("labels", labels[rows].astype(np.uint8))):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (root / f"{part}-{what}-idx{array.ndim}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    (tmp_path / "factory.py").write_text(FACTORY, encoding="utf-8")
    done = run_cli(
        "assess", f"python:{tmp_path / 'factory.py'}:badnet", "--dataset", "mnist", "--data-root", root,
        "--weights", shared_data / "badnet-mnist" / "badnet-MNIST.pth", "--normalize", "half",
        "--attacks", "none", "--detectors", "neural-cleanse",
        "--configure", "neural-cleanse.images=64,neural-cleanse.epochs=50,neural-cleanse.batch_size=16",
        "--configure", "neural-cleanse.patience=3,neural-cleanse.restarts=1",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    found = {m["name"].removeprefix("backdoor.neural-cleanse."): m for m in result["measurements"]}
    assert found["p-value"]["high"] <= 0.05
    assert found["verdict"]["value"] == 3
    assert found["suspect-label"]["value"] == 1
    assert found["verdict"]["note"].startswith("Backdoor found: label 1 ")
    assert "Backdoor found: label 1" in " ".join(done.stdout.split())
    assert found["anomaly-index"]["value"] > 2
    assert found["flagged-labels"]["value"] >= 1
    assert found["smallest-trigger"]["value"] < 25 / 784, "the patch has 5×5 pixels"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Backdoor found: label 1" in page
    assert "flagged by the rule, outlier at 5%" in page
    (arrays,) = (tmp_path / "out").rglob("*.npz")
    kept = np.load(arrays)
    assert kept["labels"][kept["pictured"][0]] == 1
    mask = kept["masks"][0].astype(float)
    assert mask[20:, 20:].sum() > 0.8 * mask.sum(), "it lies in the bottom-right corner"
