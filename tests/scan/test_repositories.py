"""Ten cloned repositories as strangers leave them: what a scan says about architectures and datasets, and what not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch

from securitynet.models.architectures.factory import build
from securitynet.scan import scan

TFLITE = Path(__file__).parents[3] / "shared" / "data" / "keras-tflite" / "pretrainedResnet_quant.tflite"

KERAS = {
    "class_name": "Sequential",
    "config": {
        "name": "sequential",
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 32, 32, 3], "name": "input_1"}},
            {"class_name": "Conv2D", "config": {"name": "conv2d", "filters": 16, "kernel_size": [3, 3]}},
            {"class_name": "Flatten", "config": {"name": "flatten"}},
            {"class_name": "Dense", "config": {"name": "dense", "units": 10, "activation": "softmax"}},
        ],
    },
}

LENET = """
class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 6, 5)
        self.hidden = nn.Linear(3456, 20)
        self.out = nn.Linear(20, 10)
"""


@dataclass(frozen=True)
class Truth:
    """What is true of the weights in a folder.

    Attributes:
        reference: Beginning of the reference that loads them.
        dataset: What they were trained on; None if nothing in the folder says so.
    """

    reference: str
    dataset: str | None


TRUTH = {
    "keras-h5": Truth("keras:", "CIFAR-10"),
    "keras-v3": Truth("keras:", "Fashion-MNIST"),
    "onnx-digits": Truth("onnx:", "SVHN"),
    "squeeze": Truth("torchvision:squeezenet1_1", "CIFAR-100"),
    "lightning": Truth("arch:tutorial-cnn", "CIFAR-10"),
    "averaged": Truth("arch:cifar-resnet20", "CIFAR-10"),
    "many-epochs": Truth("arch:simple-cnn", "MNIST"),
    "timm-head": Truth("timm:test_vit", "SVHN"),
    "lenet": Truth("python:", "Fashion-MNIST"),
    "mobile": Truth("tflite:", "CIFAR-10"),
}
IN_README = "Our classifier tells ten kinds of clothes apart:\n"
CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag and Ankle boot.\n"


def write_keras(folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    first, third = folder / "keras-h5", folder / "keras-v3"
    with h5py.File(first / "cnn.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(KERAS)
        file.create_dataset("weights", data=list(range(500)))
    (first / "train.py").write_text("(x, y), _ = tf.keras.datasets.cifar10.load_data()\nmodel.save('cnn.h5')\n")
    text = json.dumps(KERAS).replace("[null, 32, 32, 3]", "[null, 28, 28, 1]")
    with zipfile.ZipFile(third / "best.keras", "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("metadata.json", " " * 600)
    (third / "fit.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "code", "source": ["d = fashion_mnist.load_data()\n", "!pip list"]}]})
    )


def write_onnx(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    images = make.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])
    scores = make.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 10])
    weight = make.make_tensor("weight", onnx.TensorProto.FLOAT, [3072, 10], torch.rand(30720).tolist())
    nodes = [make.make_node("Flatten", ["images"], ["flat"]), make.make_node("MatMul", ["flat", "weight"], ["scores"])]
    onnx.save(make.make_model(make.make_graph(nodes, "main_graph", [images], [scores], [weight])), folder / "net.onnx")
    (folder / "README.md").write_text("# House numbers\n\nA small network for SVHN, exported to ONNX.\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held-back")
    for name in TRUTH:
        (folder / name).mkdir()
    torch.manual_seed(0)
    write_keras(folder)
    write_onnx(folder / "onnx-digits")

    from securitynet.torchvision_cure import import_torchvision

    models = import_torchvision("torchvision.models")
    safetensors.torch.save_file(
        models.squeezenet1_1(num_classes=100).state_dict(), folder / "squeeze" / "s.safetensors"
    )
    (folder / "squeeze" / "train.py").write_text(
        "net = models.squeezenet1_1(num_classes=100)\ndata = torchvision.datasets.CIFAR100('.', transform="
        "T.Normalize((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)))\n"
    )

    tutorial = build("tutorial-cnn", 10).state_dict()
    nested = {"epoch": 3, "state_dict": {f"model.{key}": value for key, value in tutorial.items()},
              "optimizer_states": [{"state": {0: {"exp_avg": torch.rand(6, 3, 5, 5)}}}]}  # fmt: skip
    torch.save(nested, folder / "lightning" / "epoch=3-step=100.ckpt")
    (folder / "lightning" / "data.py").write_text("train = CIFAR10(root, train=True)\n")

    trained, averaged = (build("cifar-resnet20", 10).state_dict() for _ in range(2))
    torch.save(
        {"model": trained, "model_ema": averaged, "optimizer": {"param_groups": []}}, folder / "averaged" / "ck.pt"
    )
    (folder / "averaged" / "demo.py").write_text(
        'CLASSES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]\n'
    )

    many = folder / "many-epochs"
    (many / "checkpoints").mkdir()
    for epoch in (1, 2):
        state = build("simple-cnn", 10, 1, 28).state_dict()
        torch.save({f"module.{key}": value for key, value in state.items()}, many / "checkpoints" / f"{epoch}.pth")
    (many / "main.py").write_text("loader = DataLoader(datasets.MNIST('data', train=True))\n")
    (many / "LICENSE").write_text("Apache License\n  Version 2.0, January 2004\n")
    git = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_DATE": "2021-05-01T00:00:00Z"}
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "main.py"], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=many, check=True, env=git)

    import timm

    network = timm.create_model("test_vit", num_classes=10)
    torch.save(network.state_dict(), folder / "timm-head" / "weights.bin")
    (folder / "timm-head" / "train.py").write_text(
        'net = timm.create_model("test_vit", num_classes=10)\ndata = load_dataset("ufldl-stanford/svhn", "cropped")\n'
    )

    shapes = {"features": (6, 1, 5, 5), "hidden": (20, 3456), "out": (10, 20)}
    own = {f"{layer}.weight": torch.rand(shape) for layer, shape in shapes.items()}
    own |= {f"{layer}.bias": torch.rand(shape[0]) for layer, shape in shapes.items()}
    torch.save(own, folder / "lenet" / "model.pth")
    (folder / "lenet" / "model.py").write_text(LENET)
    (folder / "lenet" / "README.md").write_text(IN_README + CLOTHES)

    if TFLITE.is_file():
        shutil.copy(TFLITE, folder / "mobile" / "cifar10_int8.tflite")
    # What is no classifier, and code of another repository that must not be taken for this one's.
    (folder / "generator").mkdir()
    torch.save({"deconv.weight": torch.rand(8, 4, 4, 4), "deconv.bias": torch.rand(4)}, folder / "generator" / "g.pth")
    (folder / "generator" / "notes.txt").write_text("MNIST")
    return folder


def test_architectures_and_datasets_of_ten_repositories(folder: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    report = scan([folder])
    expected = {name: truth for name, truth in TRUTH.items() if name != "mobile" or TFLITE.is_file()}
    said = {}
    for candidate in report.candidates:
        surest = candidate.surest(0.5)
        values = {code: item.value for code, item in surest.items()}
        said.setdefault(candidate.paths[0].split("/")[0], []).append(values)
    assert not report.refused
    assert len(said["many-epochs"]) == 2 and len(said["averaged"]) == 1
    claims = {(name, code): values[code] for name, rows in said.items() for values in rows for code in values}
    for name, truth in expected.items():
        assert str(claims.get((name, "reference"))).startswith(truth.reference), name
        assert claims.get((name, "dataset")) == truth.dataset, name
        assert claims[name, "classes"] == (100 if name == "squeeze" else 10)
    assert not {("generator", "reference"), ("generator", "dataset")}.intersection(claims), "no false claim"
    assert claims["many-epochs", "license"] == "apache-2.0" and claims["many-epochs", "year"] == 2021
    assert (claims["keras-v3", "image_channels"], claims["keras-v3", "image_height"]) == (1, 28)
    assert (claims["onnx-digits", "image_channels"], claims["onnx-digits", "image_height"]) == (3, 32)
    assert claims["squeeze", "preprocessing"]["mean"] == [0.5071, 0.4867, 0.4408]


def test_entries_of_whole_models_name_their_file_and_no_weights_beside_it(folder: Path) -> None:
    report = scan([folder / "onnx-digits"])
    (candidate,) = report.candidates
    entry = candidate.item(0.9).entry
    assert entry.reference == f"onnx:{folder.resolve() / 'onnx-digits' / 'net.onnx'}"
    assert entry.weights_file is None and str(entry.checksum).startswith("sha256:")
