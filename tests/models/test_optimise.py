"""Networks made fast: what is put in another order gives the same outputs and gradients."""

import copy

import torch
from torch import nn

from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.optimise import prepare


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, 5),
    ).eval()


def test_pooling_before_relu_changes_neither_outputs_nor_gradients():
    module = network()
    before = copy.deepcopy(module)
    prepared, _ = prepare(module, torch.device("cpu"), torch.zeros(1, 3, 16, 16))
    kinds = [type(layer).__name__ for layer in prepared.modules()]
    assert [kinds.index("MaxPool2d") < kinds.index("ReLU"), type(module[1])] == [True, nn.ReLU], "a copy is changed"
    images = torch.randn(6, 3, 16, 16)
    images[0] = 0.0
    found = []
    for one in (before, prepared):
        leaf = images.clone().requires_grad_()
        outputs = one(leaf)
        found.append((outputs.detach(), torch.autograd.grad(outputs.square().sum(), leaf)[0]))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-5, rtol=1e-4)


def test_a_call_has_room_for_all_lanes_and_no_more_than_memory_allows():
    def size(shape):
        backend = ModuleBackend(nn.Conv2d(3, 2, 1), reference="-", checksum="-", example_shape=shape)
        return backend.batch_size, 2 * backend._part * torch.get_num_threads()

    small, least = size((3, 32, 32))
    assert least < small <= 4 * least
    assert small * 3 * 32 * 32 <= 1 << 22
    large, least = size((3, 224, 224))
    assert large == least
