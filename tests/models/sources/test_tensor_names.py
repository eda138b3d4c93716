"""Names of tensors in files: wrappers are peeled, companions left out, renamed layers matched in order."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from securitynet.errors import WeightsMismatch
from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target
from securitynet.models.sources.layer_order import match_in_order
from securitynet.models.sources.tensor_names import fit_names


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def state():
    return dict(network().state_dict())


def prefixed(prefix, tensors):
    return {f"{prefix}{key}": value for key, value in tensors.items()}


def zeros(*shape):
    return torch.zeros(*shape)


WRAPPED = {
    "checkpoint": {key.replace("0.", "0._checkpoint_wrapped_module.", 1): v for key, v in state().items()},
    "fsdp": {f"_fsdp_wrapped_module.{key.replace('.', '._fsdp_wrapped_module.', 1)}": v for key, v in state().items()},
    "compiled and parallel": prefixed("module._orig_mod.", state()),
    "deepspeed": prefixed("_forward_module.model.", state()),
    "average": {"n_averaged": torch.tensor(7), **prefixed("module.", state())},
    "average of parallel": {"n_averaged": torch.tensor(7), **prefixed("module.module.", state())},
    "lightning": {**prefixed("model.", state()), "criterion.weight": zeros(2), "criterion.loss.pos_weight": zeros(2)},
    "lightning of any name": {**prefixed("classifier_net.", state()), "train_acc.correct": zeros(1), "tau": zeros(1)},
    "metrics": {**prefixed("net.", state()), "val_metrics.acc.confmat": zeros(2, 2), "loss_fn.weight": zeros(2)},
    "robustness": {
        **prefixed("module.model.", state()),
        **prefixed("module.attacker.model.", state()),
        "module.normalizer.new_mean": zeros(3, 1, 1),
        "module.normalizer.new_std": zeros(3, 1, 1) + 0.5,
        "module.attacker.normalize.new_mean": zeros(3, 1, 1),
        "module.attacker.normalize.new_std": zeros(3, 1, 1) + 0.5,
    },
    "normalised inside": {"0.mean": zeros(1, 3, 1, 1), "0.std": zeros(1, 3, 1, 1) + 1, **prefixed("1.", state())},
    "robustbench": {"0.mu": zeros(1, 3, 1, 1) + 0.4, "0.sigma": zeros(1, 3, 1, 1) + 0.2, **prefixed("1.", state())},
    "flat criterion": {**state(), "criterion.weight": zeros(2)},
}


@pytest.mark.parametrize("tensors", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_and_companions(tensors):
    fitted = fit_names(tensors, state())
    assert fitted.state.keys() == state().keys()
    assert all(torch.equal(fitted.state[key], value) for key, value in state().items())
    assert bool(fitted.notes) == (len(tensors) > len(state()))


def test_what_the_file_says_of_its_normalisation():
    assert fit_names(WRAPPED["robustness"], state()).normalization.std == (0.5, 0.5, 0.5)
    assert fit_names(WRAPPED["normalised inside"], state()).normalization.mean == ()
    stated = fit_names(WRAPPED["robustbench"], state()).normalization
    assert (stated.mean, stated.std) == ((0.4,) * 3, (0.2,) * 3)
    assert fit_names(state(), state()).normalization is None


def test_an_average_is_noted():
    averaged = AveragedModel(network())
    averaged.update_parameters(network())
    fitted = fit_names(dict(averaged.state_dict()), state())
    assert fitted.state.keys() == state().keys()
    assert any("average over training (n_averaged 1)" in note for note in fitted.notes)


@pytest.mark.parametrize(
    "extra",
    [
        {"model.projector.weight": zeros(8, 4)},  # inside the network
        {"arcface.weight": zeros(8, 4)},  # beside it, and a layer
        {"model.5.weight": zeros(2)},
    ],
)
def test_what_is_not_known_to_be_no_part_of_the_network_is_reported(extra):
    fitted = fit_names({**prefixed("model.", state()), **extra}, state())
    assert not fitted.state.keys() <= state().keys()


def test_names_that_the_network_has_itself_stay():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.criterion = nn.Linear(2, 2)

    wanted = dict(Odd().state_dict())
    assert fit_names(wanted, wanted).state.keys() == wanted.keys()
    assert fit_names(prefixed("module.", wanted), wanted).state.keys() == wanted.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_old_and_new_names_of_normalised_weights(kind):
    old = getattr(nn.utils, kind)(nn.Linear(3, 2))
    new = getattr(nn.utils.parametrizations, kind)(nn.Linear(3, 2))
    with_old = {f"a.{key}": value for key, value in old.state_dict().items()}
    with_new = {f"a.{key}": value for key, value in new.state_dict().items()}
    assert fit_names(with_old, with_new).state.keys() == with_new.keys()
    assert fit_names(with_new, with_old).state.keys() == with_old.keys()


# Renamed layers


def test_layers_of_other_names_are_matched_in_order():
    names = {"0": "stem.conv", "1": "stem.norm", "3": "head"}
    renamed = {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in state().items()}
    found = match_in_order(renamed, state())
    assert found is not None
    assert all(torch.equal(found.state[key], value) for key, value in state().items())
    assert "stem.conv → 0" in found.note


def three(names):
    return {f"{name}.weight": torch.full((4, 4), float(at)) for at, name in enumerate(names)}


def test_equal_layers_are_matched_only_where_the_order_is_certain():
    wanted = three(("a", "b", "c"))
    found = match_in_order(three(("zeta", "eta", "theta")), wanted)  # the order of definition, as torch.save keeps it
    assert found is not None
    assert [float(found.state[f"{name}.weight"][0, 0]) for name in "abc"] == [0, 1, 2]
    assert match_in_order(three(("layer1", "layer2", "layer3")), wanted) is not None
    # As safetensors sorts them: is the first the first?
    assert match_in_order(three(("eta", "theta", "zeta")), wanted) is None
    # Nobody sorted a file in which weights come before biases.
    kept = {f"{name}.{kind}": zeros(4) for name in ("eta", "theta", "zeta") for kind in ("weight", "bias")}
    ours = {f"{name}.{kind}": zeros(4) for name in "abc" for kind in ("weight", "bias")}
    assert match_in_order(kept, ours) is not None
    assert match_in_order(dict(sorted(kept.items())), ours) is None
    many = three([f"x{i}" for i in range(12)])
    assert match_in_order(three(sorted(f"layer{i}" for i in range(12))), many) is None
    assert match_in_order(three([f"layer{i}" for i in range(12)]), many) is not None


def test_no_match_where_shapes_differ():
    wanted = state()
    assert match_in_order({**wanted, "3.weight": zeros(2, 5)}, wanted) is None
    assert match_in_order({key: value for key, value in wanted.items() if key != "3.bias"}, wanted) is None
    assert match_in_order({**wanted, "4.weight": zeros(2)}, wanted) is None


def test_a_renamed_file_is_loaded_with_a_note(tmp_path):
    net = build("cifar-resnet20", 7)
    names = {key: f"stage.{key.replace('layer', 'block').replace('linear', 'fc')}" for key in net.state_dict()}
    torch.save({names[key]: value for key, value in net.state_dict().items()}, tmp_path / "w.pth")
    target = load_target("arch:cifar-resnet20", weights=tmp_path / "w.pth", normalize="none")
    assert target.num_classes == 7
    assert any("matched in order" in note for note in target.notes)
    images = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        expected = net.eval()(images)
    torch.testing.assert_close(target.logits(images), expected, rtol=1e-3, atol=1e-4)
    other = build("cifar-resnet32", 7)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsMismatch, match="arch:cifar-resnet32"):
        load_target("arch:cifar-resnet20", weights=tmp_path / "other.pth", normalize="none")


# The real material

TUTORIAL = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)
    def forward(self, x):
        x = self.pool(torch.relu(self.conv2(self.pool(torch.relu(self.conv1(x))))))
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))
def net(): return Net()
"""


@pytest.mark.slow
@pytest.mark.real_data
def test_strangers_files(shared_data, tmp_path):
    from securitynet.errors import SecurityNetError

    (tmp_path / "net.py").write_text(TUTORIAL)
    reference = f"python:{tmp_path / 'net.py'}:net"
    folder = shared_data / "tutorial-nets"
    for path in sorted(folder.glob("net-*.pth")):
        target = load_target(reference, weights=path, normalize="half", input_size=32)
        assert target.num_classes == 10
        assert not any("matched in order" in note for note in target.notes)
    words = {}
    for path in sorted(folder.glob("other-*.pth")):
        try:
            target = load_target(reference, weights=path, normalize="half", input_size=32)
            words[path.stem] = " ".join(target.notes)
        except SecurityNetError as error:
            words[path.stem] = f"{type(error).__name__}: {error}"
    assert "matched in order" in words.pop("other-19")
    assert "UnsafeFile" in words.pop("other-07")
    assert all("WeightsMismatch" in text for text in words.values())
