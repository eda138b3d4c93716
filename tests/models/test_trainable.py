"""Any architecture can be trained: references, factories of the user, and what their stored models are kept under."""

import dataclasses
import importlib.metadata

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.datasets import load
from securitynet.errors import ConfigurationError, ModelError, UnknownName
from securitynet.models.architectures.in_process import register_factory, register_module
from securitynet.models.loading.load import load_target
from securitynet.models.shadows.plan import ShadowTraining, find_own_architecture, resolve_training
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.versions import describe_builder, digest_source_files
from securitynet.models.store.cached_model import ModelSpec, build_fresh_network, obtain_model
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.trainable import build_trainable, find_architecture

DIGITS = load("digits")
RECIPE = Recipe(epochs=1, batch_size=64)

NET = """
import torch
from torch import nn
from parts import head

def make(num_classes=10, channels=1):
    return nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * channels, 8), nn.ReLU(), head(8, num_classes))

def soft(num_classes=10):
    return nn.Sequential(make(num_classes), nn.Softmax(1))

def sigmoid():
    return nn.Sequential(make(10), nn.Sigmoid())

def seven():
    return make(7)

WEIGHTS = make().state_dict()

def loaded():
    network = make()
    network.load_state_dict(WEIGHTS)
    return network
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "parts.py").write_text(
        "from torch import nn\n\ndef head(width, classes):\n    return nn.Linear(width, classes)\n"
    )
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def spec(architecture, seed=0):
    indices = np.arange(0, 100, dtype=np.int64)
    recipe = RECIPE.model_copy(update={"seed": seed})
    return ModelSpec(DIGITS, indices, DIGITS.labels[indices], 10, architecture, recipe)


def test_names_and_references_are_resolved(net):
    ours = find_architecture("simple-cnn")
    assert ours == find_architecture("arch:simple-cnn") and (ours.reference, ours.version) == ("simple-cnn", "")
    timm = find_architecture("timm:resnet18.a1_in1k")
    assert timm.reference == timm.name == "timm:resnet18"
    assert timm.version == f"timm {importlib.metadata.version('timm')}"
    for library in ("torchvision", "pytorchcv"):  # nothing is imported for it
        version = describe_builder(parse_reference(f"{library}:resnet18"))
        assert version == f"{library} {importlib.metadata.version(library)}"
    own = find_architecture(f"python:{net}:make")
    assert own.name == "python:net.py:make" and own.reference == f"python:{net}:make"
    assert own.version == f"sha256:{digest_source_files(net)[:32]}"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("simple-cnm", UnknownName, "simple-cnn"),
        ("onnx:model.onnx", ConfigurationError, "not a network that can be trained"),
        ("timm:no_such_net", ModelError, "no image classifier"),
        ("python:missing.py:make", ModelError, "no Python file"),
        ("make@0123456789ab", ModelError, "another process"),
    ],
)
def test_what_can_not_be_trained_is_said(text, error, words):
    with pytest.raises(error, match=words):
        find_architecture(text)


def test_digest_covers_the_files_that_a_factory_imports(net):
    before = digest_source_files(net)
    (net.parent / "unrelated.py").write_text("x = 1")
    assert digest_source_files(net) == before
    (net.parent / "parts.py").write_text(
        "from torch import nn\n\ndef head(w, c):\n    return nn.Linear(w, c, bias=False)\n"
    )
    assert digest_source_files(net) != before


def test_each_folder_has_its_own_modules_and_changed_ones_are_read_again(net, tmp_path):
    def has_bias(path):
        return build_trainable(f"python:{path}:make", 10, 1, 8)[-1].bias is not None

    assert has_bias(net)
    other = tmp_path / "other" / "net.py"
    other.parent.mkdir()
    other.write_text(NET)
    without = (net.parent / "parts.py").read_text().replace("classes)\n", "classes, bias=False)\n")
    assert "bias=False" in without
    (other.parent / "parts.py").write_text(without)
    assert not has_bias(other)
    assert has_bias(net)
    (net.parent / "parts.py").write_text(without)
    assert not has_bias(net)


def test_keys_cover_the_source_and_not_the_folder(net, tmp_path):
    key = spec(f"python:{net}:make").record.key
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    for name in ("net.py", "parts.py"):
        (elsewhere / name).write_text((tmp_path / name).read_text())
    assert spec(f"python:{elsewhere / 'net.py'}:make").record.key == key
    (elsewhere / "net.py").write_text(NET.replace("nn.ReLU()", "nn.Tanh()"))
    assert spec(f"python:{elsewhere / 'net.py'}:make").record.key != key
    assert spec(f"python:{net}:soft").record.key != key


def test_weights_that_code_loads_do_not_start_a_training(net):
    torch.manual_seed(3)
    one, two = (build_trainable(f"python:{net}:loaded", 10, 1, 8).state_dict() for _ in range(2))
    assert not torch.equal(one["2.weight"], two["2.weight"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    given = build_trainable(register_factory(lambda: model), 10, 1, 8)
    assert given is not model and not torch.equal(given[1].weight, model[1].weight)


def test_heads_other_than_logits_are_trained_on_logits_and_keep_their_names(net):
    images = torch.rand(5, 1, 8, 8)
    for factory, expected in (("soft", torch.log_softmax), ("sigmoid", lambda scores, _: scores)):
        network = build_trainable(f"python:{net}:{factory}", 10, 1, 8).eval()
        plain = build_trainable(f"python:{net}:make", 10, 1, 8).eval()
        state = network.state_dict()
        assert set(state) == {f"0.{name}" for name in plain.state_dict()}
        plain.load_state_dict({name.removeprefix("0."): value for name, value in state.items()})
        with torch.no_grad():
            assert torch.allclose(network(images), expected(plain(images), 1), atol=1e-6)


@pytest.mark.parametrize(
    ("factory", "shape", "words"),
    [("seven", (10, 1, 8), "10 classes are wanted"), ("soft", (10, 3, 8), "does not take images of 3×8×8")],
)
def test_a_network_for_other_data_is_refused_before_training(net, factory, shape, words):
    with pytest.raises(ModelError, match=words):
        build_trainable(f"python:{net}:{factory}", *shape)


def test_initial_weights_follow_from_the_seed(net):
    one, again, other = (build_fresh_network(spec(f"python:{net}:make", seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["2.weight"], other["2.weight"])


def test_a_target_trained_from_a_factory_is_imitated_with_it(net, tmp_path):
    reference, out = f"python:{net}:make", tmp_path / "model.safetensors"
    trained = train_target(reference, DIGITS, out=out, recipe=RECIPE, device="cpu")
    record = read_target_record(out)
    assert record.architecture == "python:net.py:make" and str(tmp_path) not in out.with_suffix(".json").read_text()
    target = load_target(reference, weights=out, dataset=DIGITS, device="cpu")
    assert target.identity == trained.identity and target.architecture == reference == trained.architecture
    resolved = resolve_training(ShadowTraining(), target, record)
    assert (resolved.architecture, resolved.assumptions) == (reference, ())
    explicit = resolve_training(ShadowTraining(architecture="simple-cnn"), target, record)
    assert explicit.architecture == "simple-cnn" and "the target is python:net.py:make" in explicit.assumptions[0]
    # A changed factory is told; a factory that only the record names is never run.
    net.write_text(NET.replace("nn.ReLU()", "nn.Tanh()"))
    changed = load_target(reference, weights=out, dataset=DIGITS, device="cpu")
    assert "has changed" in resolve_training(ShadowTraining(), changed, record).assumptions[0]
    changed.backend.architecture = None
    with pytest.raises(ConfigurationError, match="the location of that file is unknown"):
        find_own_architecture(changed, record)


def test_a_target_without_record_is_imitated_with_its_own_network(tmp_path):
    torch.manual_seed(0)
    network = build_trainable("timm:test_resnet", 10, 1, 8)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    target = load_target("timm:test_resnet", weights=tmp_path / "weights.pth", dataset=DIGITS, device="cpu")
    resolved = resolve_training(ShadowTraining(), target, None)
    assert resolved.architecture == "timm:test_resnet"
    assert resolved.assumptions == ("it is not known how the target was trained",)
    assert resolved.input_size == (target.preprocessing.input_size or (None,))[0]


def test_objects_are_trained_and_stored_under_their_content(tmp_path):
    name = register_module(nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 10)))
    model = obtain_model(spec(name), kind="shadows", cache=tmp_path, device="cpu")
    assert model.target.reference == f"arch:{name}" == f"arch:{model.target.architecture}"
    again = load_target(f"arch:{name}", weights=model.weights, dataset=DIGITS, device="cpu")
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(again.logits(images), model.target.logits(images), atol=1e-5)


def test_the_record_of_ours_says_nothing_new():
    record = spec("simple-cnn").record
    assert "architecture_version" not in record.document()
    assert dataclasses.replace(spec("simple-cnn"), architecture="arch:simple-cnn").record.key == record.key
