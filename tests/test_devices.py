"""Where networks are built."""

from __future__ import annotations

import torch
from torch import nn

from securitynet.devices import use_meta_device
from securitynet.models.architectures.factory import build


def test_a_network_on_the_meta_device_has_the_shapes_of_a_real_one_and_no_values():
    torch.manual_seed(0)
    real = build("cifar-resnet20", num_classes=7, channels=3, image_size=32)
    state = torch.random.get_rng_state()
    with use_meta_device():
        shapes = build("cifar-resnet20", num_classes=7, channels=3, image_size=32)
        outputs = shapes(torch.empty(2, 3, 32, 32))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert outputs.is_meta and outputs.shape == (2, 7)
    assert all(tensor.is_meta for tensor in shapes.state_dict().values())
    described = [
        {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}
        for network in (real, shapes)
    ]
    assert described[0] == described[1]


def test_tensors_with_memory_keep_their_initial_values():
    layer = nn.Linear(3, 2)
    with use_meta_device():
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert layer.weight.eq(1).all() and layer.bias.eq(0).all()
