"""Networks made fast: what is put in another order gives the same outputs and gradients."""

import copy
import threading

import pytest
import torch
from torch import nn

from securitynet.models.targets import optimise
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.input_gradients import InputGradients
from securitynet.models.targets.optimise import prepare_network
from securitynet.models.targets.target import Target
from securitynet.records import Access


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
    prepared = prepare_network(module, torch.device("cpu"), torch.zeros(1, 3, 16, 16)).module
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
    assert least <= large <= max(least, (1 << 21) // (3 * 224 * 224))


class Tap(nn.Module):
    """Looks at what lies between the layers of its own Sequential."""

    def __init__(self):
        super().__init__()
        self.features = network()[:7]
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        seen = []
        for at, layer in enumerate(self.features):
            x = layer(x)
            if at in (1, 5):
                seen.append(x.mean((2, 3)))
        return self.head(torch.cat(seen, 1))


class TapByHook(nn.Module):
    """The same by a hook."""

    def __init__(self):
        super().__init__()
        self.features = network()[:7]
        self.head = nn.Linear(8, 5)
        self.seen = None
        self.features[1].register_forward_hook(self.look)

    def look(self, layer, inputs, outputs):
        self.seen = outputs.mean((2, 3))

    def forward(self, x):
        self.features(x)
        return self.head(self.seen)


@pytest.mark.parametrize("kind", [Tap, TapByHook])
def test_a_network_that_taps_its_own_sequential_keeps_it(kind):
    torch.manual_seed(0)
    module = kind().eval()
    images = torch.rand(8, 3, 16, 16)
    with torch.no_grad():
        expected = module(images)
    backend = ModuleBackend(module, reference="-", checksum="-", example_shape=(3, 16, 16))
    torch.testing.assert_close(backend.outputs(images), expected, atol=1e-5, rtol=1e-4)


class Thresholded(nn.Module):
    """Works as it is on small inputs, and otherwise on those of real images: random inputs do not show it."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        x = self.inner[:1](x)
        x = self.inner[1](x) if isinstance(self.inner[1], nn.ReLU) else x + 3 * (x > 50).to(x.dtype)
        x = self.inner[2](x) if isinstance(self.inner[2], nn.MaxPool2d) else self.inner[1](self.inner[2](x))
        return self.inner[3:](x)


def test_changes_are_undone_where_real_images_show_a_difference():
    torch.manual_seed(0)
    module = Thresholded().eval()
    backend = ModuleBackend(module, reference="-", checksum="-", example_shape=(3, 16, 16))
    images = 400 * torch.rand(8, 3, 16, 16)
    with torch.no_grad():
        expected = module(images)
    assert not torch.allclose(backend.outputs(images), expected, rtol=1e-3)
    assert backend.verify(images) is False
    torch.testing.assert_close(backend.outputs(images), expected, atol=1e-3, rtol=1e-4)
    assert ModuleBackend(network(), reference="-", checksum="-", example_shape=(3, 16, 16)).verify(images) is True


class Locked(nn.Module):
    """Holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.inner, self.lock = network(), threading.Lock()

    def forward(self, x):
        return self.inner(x)


def normalised(norm):
    return nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: normalised(nn.utils.weight_norm),
        lambda: normalised(nn.utils.spectral_norm),
        lambda: normalised(nn.utils.parametrizations.weight_norm),
        Locked,
    ],
)
def test_networks_that_cannot_be_copied_or_frozen_are_used_as_they_are(make):
    images = torch.rand(40, 3, 16, 16)
    torch.manual_seed(0)
    module = make().train()
    module(images)  # computes what such layers compute
    module.eval()
    with torch.no_grad():
        expected = module(images).clone()
    torch.manual_seed(0)
    fresh = make().train()
    fresh(images)
    backend = ModuleBackend(fresh, reference="-", checksum="-", example_shape=(3, 16, 16))
    torch.testing.assert_close(backend.outputs(images), expected, atol=1e-4, rtol=1e-3)
    target = Target(backend, access=Access.WHITE_BOX)
    labels = torch.zeros(40, dtype=torch.long)
    gradients = InputGradients(target)(images, labels).gradients
    assert float(gradients.abs().sum()) > 0
    torch.testing.assert_close(backend.outputs(images), expected, atol=1e-4, rtol=1e-3)


class Counting(nn.Sequential):
    """A network whose length is an error, like that of one that torch.compile wraps."""

    def __len__(self):
        raise TypeError("no length")


def test_the_length_of_a_network_does_not_matter():
    images = torch.rand(4, 3, 8, 8)
    module = Counting(nn.Flatten(), nn.Linear(192, 5)).eval()
    backend = ModuleBackend(module, reference="-", checksum="-", example_shape=(3, 8, 8))
    torch.testing.assert_close(backend.outputs(images), module(images).detach())


class Residual(nn.Module):
    """A block whose sum is needed once, and one whose convolution is needed twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(width, 8, 3, padding=1) for width in (3, 8, 8))
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.relu(x + self.second(x))
        kept = self.third(x)
        return self.head((torch.relu(kept) + kept * kept.mean(dim=(2, 3), keepdim=True)).mean((2, 3)))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_sums_and_relus_in_place_change_no_bit_of_outputs_and_gradients(precision, monkeypatch):
    torch.manual_seed(0)
    module, images = Residual().eval(), torch.randn(6, 3, 16, 16)
    found = []
    for change in (optimise._in_place, lambda _: None):
        monkeypatch.setattr(optimise, "_in_place", change)
        prepared = prepare_network(module, torch.device("cpu"), torch.zeros(1, 3, 16, 16)).module
        leaf = images.clone().requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
            outputs = prepared(leaf).float()
        found.append((outputs.detach(), torch.autograd.grad(outputs.square().sum(), leaf)[0], prepared.code))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert [code.count("relu_(") for *_, code in found] == [2, 0]
    assert found[0][2].count("_add_in_place(") == 1, "the output that two layers read stays"


def test_a_sum_of_other_shape_or_type_is_not_made_in_place():
    narrow, wide, half = torch.ones(2, 1), torch.ones(2, 3), torch.ones(2, 1, dtype=torch.bfloat16)
    assert optimise._add_in_place(narrow, wide).shape == (2, 3)
    assert optimise._add_in_place(half, narrow).dtype == torch.float32
    assert narrow.eq(1).all() and half.eq(1).all()
    assert optimise._add_in_place(narrow, narrow.clone()) is narrow
