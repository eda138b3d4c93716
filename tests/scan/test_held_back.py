"""Kinds of repositories that a scan read wrong when they were made: each as small as it can be."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target
from securitynet.scan import Candidate, scan
from securitynet.scan.read_code import read_code

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
LENET = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}


def read_one(folder: Path, state: dict[str, torch.Tensor], **files: str) -> Candidate:
    torch.save(state, folder / "weights.pth")
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    (candidate,) = scan([folder]).candidates
    return candidate


def rename(state: dict[str, torch.Tensor], **names: str) -> dict[str, torch.Tensor]:
    return {".".join(names.get(part, part) for part in key.split(".")): value for key, value in state.items()}


def test_a_layer_that_normalises_comes_before_a_network_with_names_of_its_own(tmp_path: Path) -> None:
    """As adversarial training saves it: Sequential(Normalize, network), compiled."""
    network = rename(build("cifar-resnet20", 10).state_dict(), linear="classifier", conv1="first")
    state = {f"_orig_mod.1.{key}": value for key, value in network.items()}
    state |= {f"_orig_mod.0.{key}": torch.tensor(v).view(1, 3, 1, 1) for key, v in (("mean", MEAN), ("std", STD))}
    candidate = read_one(tmp_path, state)
    assert candidate.surest()["reference"].value == "arch:cifar-resnet20"
    stated = candidate.surest(0.95)["preprocessing"].value
    assert stated["mean"] == pytest.approx(MEAN) and stated["std"] == pytest.approx(STD)
    target = load_target("arch:cifar-resnet20", weights=tmp_path / "weights.pth")
    assert target.preprocessing.mean == pytest.approx(MEAN) and target.preprocessing.std == pytest.approx(STD)


@pytest.mark.parametrize(
    "code",
    [
        f"stats = ({MEAN}, {STD})\nt = tt.Compose([tt.ToTensor(), tt.Normalize(*stats, inplace=True)])\n",
        f"t = T.Normalize(mean=[x / 255.0 for x in {[255 * v for v in MEAN]}],\n"
        f"    std=[x / 255.0 for x in {[255 * v for v in STD]}])\n",
        f"M = np.array({[255 * v for v in MEAN]}) / 255\nS = np.array({[255 * v for v in STD]}) / 255\n"
        "t = T.Normalize(M, S)\n",
        f"r, g, b = {', '.join(map(str, MEAN))}\nS = {STD}\nt = T.Normalize((r, g, b), S)\n",
    ],
)  # fmt: skip
def test_constants_are_computed_or_named_one_by_one(tmp_path: Path, code: str) -> None:
    path = tmp_path / "train.py"
    path.write_text(code)
    read = read_code(path)
    assert read is not None and len(set(read.normalizations)) == 1
    assert read.normalizations[0].mean == pytest.approx(MEAN) and read.normalizations[0].std == pytest.approx(STD)


def test_grey_constants_have_names_too(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("MEAN, STD = 0.1918, 0.3483\nt = transforms.Normalize((MEAN,), (STD,))\n")
    read = read_code(path)
    assert read is not None and {(item.mean, item.std) for item in read.normalizations} == {((0.1918,), (0.3483,))}
    path.write_text("MEAN, STD = 0.1918, 0.3483\nMEAN = 0.2\nt = transforms.Normalize((MEAN,), (STD,))\n")
    other = read_code(path)
    assert other is not None and not other.normalizations, "which of two values is meant is not known"


def test_lists_of_lists_of_lists_take_no_time(tmp_path: Path) -> None:
    deep = "x"
    for _ in range(8):
        deep = f"[{deep} for x in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)]"
    doubling = "a0 = [1, 1]\n" + "".join(f"a{i + 1} = [a{i}, a{i}]\n" * 2 for i in range(60))
    path = tmp_path / "net.py"
    path.write_text(f"y = {deep}\n{doubling}b = a60 / 2\nc = {'9' * 4000} / 3\nd = 1 / 0\n")
    started = time.process_time()
    assert read_code(path) is not None
    assert time.process_time() - started < 2


def test_a_class_that_needs_arguments_is_made_by_its_function(tmp_path: Path) -> None:
    needing = "class Net(nn.Module):\n    def __init__(self, width, depth=2):\n        self.body = nn.Linear(4, 4)\n"
    state = {"body.weight": torch.rand(16, 16), "body.bias": torch.rand(16)}
    both = "def small():\n    return Net(8)\ndef large():\n    return Net(64)\n"
    for functions, name in (("", None), ("def small():\n    return Net(8)\n", "small"), (both, None)):
        candidate = read_one(tmp_path, state, net__py=needing + functions)
        reference = candidate.surest().get("reference")
        assert (reference and reference.value.rpartition(":")[2]) == name
        assert candidate.surest()["architecture"].value == (name or "Net")
    free = needing.replace("width, ", "*, ").replace("self.body =", "self.body: M =")
    candidate = read_one(tmp_path, state, net__py=free)
    assert candidate.surest()["reference"].value.endswith("net.py:Net")


def test_a_class_that_cannot_be_made_hides_no_network_of_these_shapes(tmp_path: Path) -> None:
    """As many do: ResNet(block, counts), and a function for each depth."""
    code = (
        "class ResNet(nn.Module):\n    def __init__(self, block, counts):\n"
        + "".join(f"        self.{name} = f()\n" for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "head"))
        + "def ResNet20():\n    return ResNet(Basic, [3, 3, 3])\ndef ResNet32():\n    return ResNet(Basic, [5, 5, 5])\n"
    )
    candidate = read_one(tmp_path, rename(build("cifar-resnet20", 10).state_dict(), linear="head"), net__py=code)
    assert candidate.surest()["reference"].value == "arch:cifar-resnet20"


def test_a_network_for_images_of_another_size_than_the_data_is_doubted(tmp_path: Path) -> None:
    """LeNet for 28×28 images pads its first layer; names and shapes are those of the tutorial's network for 32×32."""
    state = {f"{layer}.{kind}": torch.rand(shape if kind == "weight" else shape[0])
             for layer, shape in LENET.items() for kind in ("weight", "bias")}  # fmt: skip
    code = "class LeNet(nn.Module):\n    def __init__(self):\n" + "".join(
        f"        self.{layer} = nn.Linear(1, 1)\n" for layer in LENET
    )
    loads = "data = torchvision.datasets.MNIST('.', transform=ToTensor())\n"
    candidate = read_one(tmp_path, state, net__py=code + loads)
    assert candidate.surest()["reference"].value.endswith("net.py:LeNet") and candidate.confidence < 0.9
    assert "image_height" not in candidate.surest(0.5)
    padded = read_one(tmp_path, state, net__py=code + loads.replace("ToTensor()", "Pad(2)"))
    assert padded.surest()["reference"].value == "arch:tutorial-cnn", "the code brings images to the network's size"


def test_the_body_of_a_network_is_known_whatever_its_head(tmp_path: Path) -> None:
    from securitynet.torchvision_cure import import_torchvision

    network = import_torchvision("torchvision.models").squeezenet1_1(num_classes=2)
    state = {name: value for name, value in network.state_dict().items() if name.startswith("features")}
    head = {"classifier.1.weight": torch.rand(64, 512), "classifier.1.bias": torch.rand(64),
            "classifier.4.weight": torch.rand(2, 64), "classifier.4.bias": torch.rand(2)}  # fmt: skip
    candidate = read_one(tmp_path, state | head)
    assert candidate.surest()["architecture"].value == "squeezenet1_1" and candidate.confidence == 0
    assert candidate.surest()["classes"].value == 2
    other = {name: value for name, value in state.items() if "12" not in name}
    assert "architecture" not in read_one(tmp_path, other | head).surest()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MobileNet, fine-tuned on the [Street View House Numbers](http://x.org) data", "SVHN"),
        ("German Traffic Sign Recognition Benchmark, 43 classes", "GTSRB"),
        ("trained on the Caltech-UCSD Birds 200 images", "CUB-200-2011"),
    ],
)
def test_a_readme_writes_names_out(tmp_path: Path, text: str, name: str) -> None:
    candidate = read_one(tmp_path, {"conv.weight": torch.rand(16, 3, 5, 5)}, README__md=f"# A network\n\n{text}.\n")
    assert candidate.surest()["dataset"].value == name
