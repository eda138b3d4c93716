"""A public backdoored classifier: a white 5×5 patch in the bottom-right corner sends images to class 1."""

import numpy as np
import pytest
import torch

from mnist import read_mnist
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import public
from securitynet.detectors import DETECTORS
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.loading.load import load_target

pytestmark = pytest.mark.real_data

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2))
        self.fc1 = nn.Sequential(nn.Linear(512, 512), nn.ReLU())
        self.fc2 = nn.Sequential(nn.Linear(512, 10), nn.Softmax(dim=-1))

    def forward(self, images):
        return self.fc2(self.fc1(self.conv2(self.conv1(images)).flatten(1)))

def net():
    return Net()
"""
PATCH = {"size": 5}


@pytest.fixture(scope="module")
def badnet(shared_data, tmp_path_factory):
    """(target, data) of 5,000 real MNIST images."""
    pixels, labels = read_mnist()
    parts = {"train": np.arange(1500), "test": np.arange(1500, 5000)}
    dataset = ImageDataset("mnist", torch.from_numpy(pixels)[:, None], labels, tuple("0123456789"), parts)
    factory = tmp_path_factory.mktemp("badnet") / "factory.py"
    factory.write_text(NETWORK)
    weights = shared_data / "badnet-mnist" / "badnet-MNIST.pth"
    target = load_target(f"python:{factory}:net", weights=weights, dataset=dataset, normalize="half")
    return target, TrialData(dataset, public(dataset))


def measures(name, target, data, **settings):
    detector = DETECTORS.get(name)(trigger=PATCH, **settings)
    output = detector(target, data, Context(), detector.threat_models[0])
    return {m.name: m for m in output.measurements(level=0.95, fprs=(0.01,), seed=0)}, output


def test_strip_catches_stamped_images_and_passes_clean_ones(badnet):
    found, output = measures("strip", *badnet, mix="add", images=400, calibration=400)
    assert found["trigger-success-rate"].value > 0.85, "all but those of the trigger's own class"
    # The AUC's interval covers a worst record that was not drawn, so its lower end is further away than DeLong's was.
    assert found["detection-rate"].low > 0.95 and found["auc"].value > 0.999 and found["auc"].low > 0.98
    assert found["false-rejection-rate"].value < 0.08
    assert output.notes == ()


def test_neo_catches_stamped_images_passes_clean_ones_and_finds_the_corner(badnet):
    found, output = measures("neo", *badnet, images=25)
    assert found["detection-rate"].value > 0.9
    assert found["false-rejection-rate"].value == 0
    regions = output.facts["stamped regions"][output.triggered.flagged]
    assert np.median(regions[:, 0]) >= 21 and np.median(regions[:, 1]) >= 21


def test_clustering_finds_stamped_training_records_and_nothing_without_them(badnet):
    size = {"records": 800, "held_out": 800}
    found, _ = measures("activation-clustering", *badnet, **size)
    assert found["foreign-p-value"].value < 1e-3 and found["detection-rate"].low > 0.8
    assert found["false-rejection-rate"].value < 0.02
    detector = DETECTORS.get("activation-clustering")(**size)
    output = detector(*badnet, Context(), detector.threat_models[0])
    clean = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    assert clean["foreign-classes"].value == 0 and clean["foreign-p-value"].value > 0.05
