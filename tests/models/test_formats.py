"""Keras, TFLite, torch.export, TorchScript and folders of timm: files made here, and the real ones."""

import json
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import securitynet
from installed import needs_keras
from securitynet.errors import ModelError, UnsafeFile
from securitynet.records import Access

CLASSES = 10
SIZE = 16


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    return layers.eval()


@pytest.fixture
def images():
    return torch.rand((5, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))


def assert_white_box(target, images, expected):
    """The target's logits are the expected ones, and gradients reach the images."""
    assert target.access is Access.WHITE_BOX
    assert torch.allclose(target.logits(images), expected, atol=1e-4)
    moving = images.clone().requires_grad_(True)
    target.module(moving).square().sum().backward()
    assert float(moving.grad.abs().sum()) > 0


@pytest.fixture
def keras_model():
    needs_keras()
    from securitynet.models.sources.keras import import_keras

    keras = import_keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES),
        ]
    )
    return keras, model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_is_a_white_box(keras_model, suffix, tmp_path, images):
    _, model = keras_model
    model.save(tmp_path / f"m{suffix}")
    target = securitynet.load_target(str(tmp_path / f"m{suffix}"), normalize="none")
    assert (target.reference, target.num_classes) == (f"keras:m{suffix}", CLASSES)
    assert_white_box(target, images, model(images.permute(0, 2, 3, 1)).detach())
    assert target.embeddings(images).shape == (5, 4)


def test_a_sigmoid_of_keras_is_taken_off(keras_model, tmp_path, images):
    keras, model = keras_model
    model.add(keras.layers.Activation("sigmoid"))
    model.save(tmp_path / "m.keras")
    target = securitynet.load_target(f"keras:{tmp_path}/m.keras", normalize="none")
    assert target.head == "logits" and any("sigmoid" in note for note in target.notes)
    assert torch.allclose(target.logits(images).sigmoid(), model(images.permute(0, 2, 3, 1)).detach(), atol=1e-5)


def test_code_in_a_keras_file_is_refused(keras_model, tmp_path):
    keras, model = keras_model
    model.add(keras.layers.Lambda(lambda x: x))
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        with pytest.raises(UnsafeFile, match="Lambda"):
            securitynet.load_target(f"keras:{tmp_path}/{name}")


def test_a_class_that_keras_does_not_define_is_refused(keras_model, tmp_path):
    _, model = keras_model
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    config["config"]["layers"][1].update(module="os", class_name="system", registered_name=None)
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, json.dumps(config) if name == "config.json" else data)
    with pytest.raises(UnsafeFile, match="system of os"):
        securitynet.load_target(f"keras:{tmp_path}/bad.keras")


def test_keras_weights_alone_and_damaged_files_are_said_to_be_so(keras_model, tmp_path):
    _, model = keras_model
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ModelError, match="weights only"):
        securitynet.load_target(f"keras:{tmp_path}/m.weights.h5")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "m.weights.h5").read_bytes()[:500])
    with pytest.raises(ModelError, match="damaged"):
        securitynet.load_target(f"keras:{tmp_path}/cut.h5")


def test_torch_export_is_a_white_box(network, images, tmp_path):
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (torch.rand(4, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    (tmp_path / "m.pt2").rename(tmp_path / "renamed")
    target = securitynet.load_target(str(tmp_path / "renamed"), normalize="none")
    assert target.reference == "exported:renamed"
    assert_white_box(target, images, network(images).detach())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m/data/aotinductor/model/x.so", b"x", "compiled code"),
        ("m/data/sample_inputs/other.pt", b"cos\nsystem\n.", "more than tensors"),
        ("m/models/other.json", b'{"expr_str": "__import__(\'os\')"}', "expression"),
        ("m/models/other.json", b'{"target": "torch.ops.mine.op.default"}', "not an operator of torch"),
    ],
)
def test_torch_export_with_code_is_refused(network, tmp_path, name, content, said):
    torch.export.save(torch.export.export(network, (torch.rand(4, 3, SIZE, SIZE),)), tmp_path / "m.pt2")
    with zipfile.ZipFile(tmp_path / "m.pt2", "a") as archive:
        archive.writestr(name, content)
    with pytest.raises(UnsafeFile, match=said):
        securitynet.load_target(f"exported:{tmp_path}/m.pt2")


def test_torchscript_needs_trust(network, images, tmp_path):
    torch.jit.save(torch.jit.script(network), str(tmp_path / "m.pt"))
    with pytest.raises(UnsafeFile, match=r"lets torch\.jit run the program"):
        securitynet.load_target(str(tmp_path / "m.pt"))
    target = securitynet.load_target(f"torchscript:{tmp_path}/m.pt", trust=True, normalize="none", input_size=SIZE)
    assert_white_box(target, images, network(images).detach())


def test_a_factory_may_return_a_script(tmp_path):
    (tmp_path / "n.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))\n"
    )
    target = securitynet.load_target(f"python:{tmp_path}/n.py:make", normalize="none", input_size=32)
    assert target.num_classes == 10


def test_a_folder_of_timm(tmp_path, images):
    from safetensors.torch import save_file

    from securitynet.torchvision_cure import import_torchvision

    network = import_torchvision("timm").create_model("resnet18", num_classes=4).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "resnet18", "num_classes": 4, "label_names": ["a", "b", "c", "d"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    target = securitynet.load_target(f"hf:{tmp_path}", normalize="none", input_size=SIZE)
    assert torch.allclose(target.logits(images), network(images).detach(), atol=1e-3)
    assert target.reference == f"hf:{tmp_path.name}"
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no .*safetensors"):
        securitynet.load_target(f"hf:{tmp_path}")


@pytest.mark.slow
@pytest.mark.real_data
def test_the_real_keras_and_tflite_files_agree(shared_data):
    needs_keras()
    pytest.importorskip("ai_edge_litert")
    folder = shared_data / "keras-tflite"
    dataset = securitynet.load_dataset(f"parquet:{shared_data / 'cifar10-jpeg'}", limit=200)
    test = dataset.parts["test"]
    accuracies, logits = {}, {}
    for name in ("pretrainedResnet.h5", "pretrainedResnet.tflite", "pretrainedResnet_quant.tflite"):
        target = securitynet.load_target(str(folder / name), dataset=dataset)
        assert "bytes" in target.preprocessing.describe()
        logits[name] = target.posteriors(dataset.batch(test))
        accuracies[name] = float(np.mean(logits[name].argmax(1).numpy() == dataset.labels[test]))
    assert all(accuracy > 0.65 for accuracy in accuracies.values())
    assert torch.allclose(logits["pretrainedResnet.h5"], logits["pretrainedResnet.tflite"], atol=1e-3)
    assert abs(accuracies["pretrainedResnet.tflite"] - accuracies["pretrainedResnet_quant.tflite"]) < 0.06


@pytest.mark.real_data
def test_the_real_graph_of_2017_is_converted(shared_data):
    target = securitynet.load_target(f"onnx:{shared_data / 'opset6.onnx'}", normalize="none")
    assert target.num_classes == 10 and any("opset" in note for note in target.notes)
    assert target.posteriors(torch.rand(3, 1, 28, 28)).shape == (3, 10)
