"""Neuron noise: margins by hand, the contract, a network with a warped trigger and a clean one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.backdoors.warp import Warp
from securitynet.datasets import splits
from securitynet.detectors.neuron_noise import NeuronNoise, NoiseMargins, list_noisy_layers
from securitynet.errors import ModelError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access
from securitynet.testing import check_detector

from backdoored import TRAINING  # isort: skip


def wrap(network):
    backend = ModuleBackend(network.eval(), reference="hand", checksum="hand", example_shape=(1, 2, 2))
    return Target(backend, access=Access.WHITE_BOX)


def make_network():
    """Two hidden neurons with positive weights, each of which is the logit of a class."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 1.0, 1.0]]))
        network[1].bias.copy_(torch.tensor([0.5, 0.25]))
        network[2].weight.copy_(torch.eye(2))
    return network


def test_margins_of_a_linear_network_by_hand():
    # The margin is largest with the class's own neuron scaled by 1.5 and the other by 0.5, whatever the start, so that
    # half of the sum of both neurons is added.
    images = torch.rand((6, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    hidden = make_network()[:2](images).detach().double()
    own, other = hidden[[3, 4, 5, 0, 1, 2], [0, 0, 0, 1, 1, 1]], hidden[[3, 4, 5, 0, 1, 2], [1, 1, 1, 0, 0, 0]]
    expected = torch.stack([1.5 * own - 0.5 * other, 0.5 * (own + other)]).view(2, 2, 3).mean(dim=2)
    target = wrap(make_network())
    margins = NeuronNoise(epsilon=0.5, steps=10, starts=2).maximise_margins(target, images, labels)
    for start in range(2):
        np.testing.assert_allclose(margins[:, start], expected, rtol=1e-5)
    # Nothing of the changes is left in the network.
    torch.testing.assert_close(target.module(images), make_network()(images))


def test_which_layers_are_changed():
    convolution, linear, last = nn.Conv2d(1, 2, 3), nn.Linear(8, 4), nn.Linear(4, 2)
    norm = nn.BatchNorm2d(2)
    assert list_noisy_layers(nn.Sequential(convolution, norm, linear, last)) == [norm]
    assert list_noisy_layers(nn.Sequential(convolution, linear, last)) == [convolution]
    assert list_noisy_layers(nn.Sequential(linear, last)) == [linear]
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ModelError, match="no layer"):
        NeuronNoise().maximise_margins(wrap(network), torch.rand(4, 1, 2, 2), torch.tensor([0, 0, 1, 1]))


def test_both_statistics_must_accuse_one_class():
    even = 10 + np.arange(10) / 10
    high, other = even.copy(), even.copy()
    high[4], other[7] = 30, 30
    names = tuple("abcdefghij")
    for values, rank in (((high, high), 2), ((high, even), 0), ((even, high), 0), ((high, other), 0)):
        output = NoiseMargins(np.stack(values)[:, None], ("margin", "gain"), names)
        measured = {m.name: m.value for m in output.measurements(level=0.95, fprs=(), seed=0)}
        assert measured["verdict"] == rank
        assert (measured["p-value"] <= 0.05) == (rank == 2)


def test_contract():
    check_detector(NeuronNoise(images=30, steps=2, starts=2))


@pytest.mark.slow
def test_a_warped_trigger_is_noticed_and_a_clean_network_is_not_accused(digits, innocent):
    backdoor = Warp(target=6, strength=2.0, rate=0.2)
    warped = train_target("simple-cnn", digits, split="public", device="cpu", backdoor=backdoor, seed=1, **TRAINING)
    data, detector = TrialData(digits, splits.make("public", digits)), NeuronNoise()
    measured = {}
    for name, target in (("warped", warped), ("clean", innocent)):
        output = detector(target, data, Context(), detector.threat_models[0])
        measured[name] = {m.name: m.value for m in output.measurements(level=0.95, fprs=(), seed=0)}
    assert (measured["warped"]["verdict"], measured["warped"]["suspect-label"]) == (2, 6)
    assert measured["clean"]["verdict"] == 0
