"""Files of weights: what is read, what is refused, and that nothing in them is executed."""

import argparse
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model

from securitynet.errors import ModelError, UnsafeFile, WeightsMismatch
from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target
from securitynet.models.sources import open_source
from securitynet.models.sources import state_dicts as fitting
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.state_dicts import fit_keys, load_weights
from securitynet.models.sources.suggestions import suggest
from securitynet.models.sources.weights import read_state_dict, state_checksum


def a_state():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn.running_var": torch.rand(4, generator=generator),
        "bn.num_batches_tracked": torch.tensor(7),
        "linear.weight": torch.randn(2, 4, generator=generator),
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# What is read


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        OrderedDict,
        lambda s: {"state_dict": s, "epoch": 3, "best_prec1": 91.7},
        lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": []}},
        lambda s: {"net": s, "acc": 93.1},
        lambda s: {"model_state_dict": s},
        lambda s: {"params": s},
        lambda s: {"ema": s},
        lambda s: {"state_dict_ema": s},
        lambda s: {"checkpoint": 1, "model": {"state_dict": s}},
        lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1), "acc": np.float64(0.9), "n": np.int64(3)},
        lambda s: {"state_dict": {**s, "epoch": 5, "name": "net"}},
        lambda s: {key: torch.nn.Parameter(value, requires_grad=False) for key, value in s.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_of_all_usual_forms(tmp_path, wrap, zipped):
    # The name says nothing; the content does.
    path = tmp_path / "weights.safetensors"
    torch.save(wrap(a_state()), path, _use_new_zipfile_serialization=zipped)
    state, checksum = read_state_dict(path)
    assert same(state, a_state())
    assert checksum == state_checksum(a_state())


def test_the_weights_come_before_their_average(tmp_path):
    average = {key: value + 1 for key, value in a_state().items()}
    torch.save({"state_dict_ema": average, "state_dict": a_state()}, tmp_path / "w.pth")
    assert same(read_state_dict(tmp_path / "w.pth")[0], a_state())


def test_the_checksum_is_that_of_the_weights_not_of_the_container(tmp_path):
    save_file(a_state(), tmp_path / "w.pth")  # safetensors under a misleading name
    torch.save({"model": a_state()}, tmp_path / "w.pt")
    (first, digest), (second, other) = read_state_dict(tmp_path / "w.pth"), read_state_dict(tmp_path / "w.pt")
    assert same(first, second)
    assert digest == other
    assert digest != state_checksum(a_state(), "resnet")
    changed = a_state()
    changed["linear.weight"][0, 0] += 1e-6
    assert state_checksum(changed) != digest
    renamed = {("bias" if key == "linear.weight" else key): value for key, value in a_state().items()}
    assert state_checksum(renamed) != digest
    reshaped = {**a_state(), "linear.weight": a_state()["linear.weight"].reshape(4, 2)}
    assert state_checksum(reshaped) != digest
    uncounted = {key: value for key, value in a_state().items() if "num_batches" not in key}
    assert state_checksum(uncounted) == digest
    assert state_checksum(dict(reversed(a_state().items()))) == digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_becomes_float32(tmp_path, dtype):
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in a_state().items()}
    torch.save(stored, tmp_path / "w.pth")
    state, _ = read_state_dict(tmp_path / "w.pth")
    assert state["conv.weight"].dtype == torch.float32
    assert state["bn.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(state["conv.weight"], a_state()["conv.weight"].to(dtype).float())


def test_checksums_of_odd_tensors():
    odd = {"empty": torch.empty(0, 3), "flag": torch.tensor(True), "view": torch.arange(6.0).reshape(2, 3).T}
    assert state_checksum(odd) == state_checksum({k: v.clone() for k, v in odd.items()})


# What is refused


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "pickle0", "state"])
def test_a_pickle_that_would_execute_code_is_refused_and_does_not_run(tmp_path, form):
    path, marker = tmp_path / "evil.pth", tmp_path / "executed"
    content = {"state_dict": a_state(), "extra": Malicious(marker)}
    if form == "zip":
        torch.save(content, path)
    elif form == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif form == "state":
        torch.save({**a_state(), "w": Malicious(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(marker), protocol=0 if form == "pickle0" else 4))
    with pytest.raises(UnsafeFile) as caught:
        read_state_dict(path)
    assert "system" in str(caught.value)
    assert "execute code" in str(caught.value)
    assert "safetensors" in str(caught.value.hint)
    assert not marker.exists()


def test_a_whole_model_is_refused_and_can_be_converted_as_the_hint_says(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    path = tmp_path / "model.pt"
    torch.save(network, path)
    with pytest.raises(UnsafeFile) as caught:
        read_state_dict(path)
    assert "torch.nn.modules" in str(caught.value)
    hint = str(caught.value.hint)
    assert "weights_only=False" not in hint
    for step in ("add_safe_globals", "weights_only=True", "save_model", "get_unsafe_globals_in_checkpoint"):
        assert step in hint
    parts = [torch.nn.Sequential, torch.nn.Linear, torch.nn.ReLU]
    named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    assert set(named) == {f"{part.__module__}.{part.__name__}" for part in parts}
    with torch.serialization.safe_globals(parts):
        save_model(torch.load(path, weights_only=True), str(tmp_path / "weights.safetensors"))
    converted, _ = read_state_dict(tmp_path / "weights.safetensors")
    assert converted.keys() == network.state_dict().keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in network.state_dict().items())


def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "model.pt")
    with pytest.raises(UnsafeFile, match="TorchScript"):
        read_state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_complex_weights_are_refused(name, tmp_path):
    state = {key: torch.complex(value, value) for key, value in a_state().items() if value.is_floating_point()}
    (save_file if name.endswith("s") else torch.save)(state, tmp_path / name)
    with pytest.raises(ModelError, match="complex"):
        read_state_dict(tmp_path / name)


def test_a_tensor_that_is_named_twice(tmp_path):
    """Of two places for one name, another program may read the other."""
    header = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {"dtype": "U8", "shape": [1], '
    header += b'"data_offsets": [0, 1]}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"x")
    with pytest.raises(ModelError, match="names 'a' twice"):
        read_state_dict(tmp_path / "w.safetensors")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_damaged_not_unsafe(tmp_path, form, share):
    state = {f"layer{i}.weight": torch.zeros(1000) for i in range(20)}
    path = tmp_path / "w"
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert not isinstance(caught.value, UnsafeFile)
    assert "damaged or cut short" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\n <html><body>404</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
        (b'{"error": "not found"}', "JSON"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "gzip"),
        (b"just some text that is no model at all", "unknown kind"),
        (bytes(2000), "unknown kind"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0", "unknown kind"),
    ],
)
def test_what_is_no_file_of_weights_is_named(tmp_path, content, expected):
    path = tmp_path / "resnet.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert not isinstance(caught.value, UnsafeFile)
    assert expected in str(caught.value)


def test_other_archives_and_contents(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ModelError, match="NumPy"):
        read_state_dict(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model.pth", b"x")
    with pytest.raises(ModelError, match="Unpack"):
        read_state_dict(tmp_path / "a.zip")
    for content, expected in (
        ({"epoch": 1, "lr": 0.1}, "holds no weights"),
        ([a_state()], "holds a list"),
        (torch.zeros(3), "single tensor"),
        ({}, "holds no weights"),
        ({"w": torch.eye(3).to_sparse()}, "sparse"),
        ({"w": torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.quint8)}, "quantised"),
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ModelError, match=expected):
            read_state_dict(tmp_path / "w.pth")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ModelError, match="no file"):
        read_state_dict(tmp_path / "absent.pth")
    save_file(a_state(), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"folder.*model\.safetensors"):
        read_state_dict(tmp_path)


# Fitting


def net():
    return build("cifar-resnet20", 10)


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"module.{key}",
        lambda key: f"model.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"model.module.{key}",
        lambda key: f"any_name_at_all.{key}",
        lambda key: key.replace("layer1.", "layer1.module."),
    ],
)
def test_prefixes_of_wrappers_are_removed(rename):
    state = net().state_dict()
    fitted = fit_keys({rename(key): value for key, value in state.items()}, state)
    assert same(fitted, dict(state))


def test_a_prefix_that_belongs_to_the_network_stays():
    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(2, 2)

    state = dict(Wrapped().state_dict())
    assert same(fit_keys(state, Wrapped().state_dict()), state)
    assert same(fit_keys({f"module.{k}": v for k, v in state.items()}, state), state)
    bare = {key.removeprefix("model."): value for key, value in state.items()}
    assert same(fit_keys(bare, state), state)


def test_counters_may_be_missing_and_leftovers_of_profilers_are_dropped():
    network, state = net(), dict(build("cifar-resnet20", 10).state_dict())
    bare = {key: value for key, value in state.items() if "num_batches" not in key}
    bare |= {"total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)}
    load_weights(network, bare, reference="arch:cifar-resnet20")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items() if key in bare)


def test_a_mismatch_names_what_differs_and_loads_nothing():
    network = net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {key: value + 1 for key, value in before.items() if key != "conv1.weight"}
    state["extra.weight"] = torch.zeros(1)
    state["linear.weight"] = torch.zeros(100, 64)
    with pytest.raises(WeightsMismatch) as caught:
        load_weights(network, state, reference="arch:cifar-resnet20", suggest=lambda: "Try something else.")
    text = str(caught.value)
    assert "1 of 116 tensors are missing (conv1.weight)" in text
    assert "1 are unexpected (extra.weight)" in text
    assert "linear.weight is 100×64 where 10×64 is expected" in text
    assert "Try something else." in text
    assert same(dict(network.state_dict()), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    state = dict(net().state_dict())
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    with pytest.raises(ModelError, match=r"NaN or infinity \(layer2\.0\.conv1\.weight\)"):
        load_weights(net(), state, reference="arch:cifar-resnet20")


@pytest.mark.parametrize(("classes", "channels"), [(7, 3), (10, 1), (100, 3)])
def test_class_count_and_channels_are_read_from_the_weights(classes, channels):
    source = open_source(parse_reference("arch:cifar-resnet20"))
    state = {f"module.{k}": v for k, v in build("cifar-resnet20", classes, channels).state_dict().items()}
    shape, counted = fitting.deduce_shape(source, state, 32)
    assert (shape.num_classes, shape.channels, counted) == (classes, channels, True)
    assert fitting.fits(source, shape, state)


def test_building_leaves_the_global_random_state_alone():
    source = open_source(parse_reference("arch:simple-cnn"))
    before = torch.get_rng_state()
    first = fitting.build_quietly(source, fitting.Shape(3, 1, 8)).state_dict()
    second = fitting.build_quietly(source, fitting.Shape(3, 1, 8)).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert same(dict(first), dict(second))


def test_suggestions_name_what_fits():
    reference = parse_reference("arch:cifar-resnet20")
    assert "arch:cifar-resnet44" in suggest(dict(build("cifar-resnet44", 7).state_dict()), reference, 32)
    small = dict(build("simple-cnn", 10, channels=1, image_size=28).state_dict())
    assert "--input-size 28" in suggest(small, parse_reference("arch:simple-cnn"), 32)
    assert suggest(a_state(), reference, 32) is None


def test_what_to_do_is_said_where_no_architecture_fits(tmp_path):
    torch.save({"w": torch.zeros(3, 3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatch) as error:
        load_target("arch:simple-cnn", weights=tmp_path / "w.pth", normalize="none", num_classes=10)
    assert "No architecture of the package fits" in error.value.hint
