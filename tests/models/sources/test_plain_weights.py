"""Weights that files hold in parts: pruned, normalised, and linear layers as 1×1 convolutions."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from securitynet.errors import WeightsMismatch
from securitynet.models.loading.load import load_target
from securitynet.models.sources.tensor_names import fit_names

FACTORY = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )

def make_convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Identity(),
        nn.Conv2d(4, 3, 1), nn.Flatten(),
    )
"""


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    scope = {}
    exec(FACTORY, scope)
    torch.manual_seed(0)
    return path, scope


def layers(network):
    return [layer for layer in network if hasattr(layer, "weight")]


def prune_all(network):
    for layer in layers(network):
        prune.l1_unstructured(layer, "weight", 0.4)
        prune.random_unstructured(layer, "bias", 1)


def normalise(kind, **options):
    def apply(network):
        for layer in layers(network):
            kind(layer, **options)
        network.train()
        for _ in range(20):  # vectors of spectral norms move; weights, too
            network(torch.rand(2, 3, 8, 8))
        for name, value in network.named_parameters():
            if name.endswith(("_g", "original0")):
                value.data *= 1.7

    return apply


FORMS = {
    "pruned": prune_all,
    "old weight norm": normalise(nn.utils.weight_norm),
    "old weight norm, one length": normalise(nn.utils.weight_norm, dim=None),
    "weight norm": normalise(parametrizations.weight_norm),
    "weight norm, second axis": normalise(parametrizations.weight_norm, dim=1),
    "old spectral norm": normalise(nn.utils.spectral_norm),
    "spectral norm": normalise(parametrizations.spectral_norm),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("form", FORMS)
def test_a_plain_network_takes_weights_held_in_parts(form, prefix, functions, tmp_path):
    path, scope = functions
    network = scope["make"]()
    FORMS[form](network)
    network.eval()
    torch.save({f"{prefix}{key}": value for key, value in network.state_dict().items()}, tmp_path / "w.pth")
    assert not network.state_dict().keys() <= scope["make"]().state_dict().keys()
    target = load_target(f"python:{path}:make", weights=tmp_path / "w.pth", normalize="none", device="cpu")
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(target.logits(images), network(images))
    kind = "pruning" if form == "pruned" else "spectral" if "spectral" in form else "weight normalisation"
    assert any("computed from the file's" in note and kind in note for note in target.notes)


@pytest.mark.filterwarnings("ignore")
def test_parts_that_do_not_belong_together_or_are_the_networks_own_stay():
    wanted = nn.Linear(3, 2).state_dict()
    odd = {"weight_orig": torch.rand(2, 3), "weight_mask": torch.ones(3, 2), "bias": torch.rand(2)}
    assert fit_names(odd, wanted).state.keys() == odd.keys()
    both = {"weight_orig": torch.rand(2, 3), "weight_mask": torch.ones(2, 3), "weight_u": torch.rand(2)}
    assert fit_names(both, wanted).state.keys() == both.keys(), "a pruned and normalised weight is none of the forms"
    own = nn.utils.weight_norm(nn.Linear(3, 2)).state_dict()
    assert fit_names(dict(own), own).state.keys() == own.keys()


@pytest.mark.parametrize(("saved", "built"), [("make", "make_convolutional"), ("make_convolutional", "make")])
def test_a_linear_layer_and_a_1x1_convolution_are_one(saved, built, functions, tmp_path):
    path, scope = functions
    network = scope[saved]().eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    target = load_target(f"python:{path}:{built}", weights=tmp_path / "w.pth", normalize="none", device="cpu")
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(target.logits(images), network(images))
    assert any("1×1 convolutions" in note and "5.weight" in note for note in target.notes)


def test_a_convolution_of_another_size_is_no_linear_layer(functions, tmp_path):
    path, scope = functions
    state = scope["make"]().state_dict()
    torch.save({**state, "5.weight": torch.rand(3, 4, 2, 2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatch, match=r"5\.weight is 3×4×2×2 where 3×4 is expected"):
        load_target(f"python:{path}:make", weights=tmp_path / "w.pth", normalize="none", device="cpu")
