"""Constants, datasets and networks that training code and configuration state in other ways than a literal call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from securitynet.scan import scan
from securitynet.scan.constants import StatedNormalization, choose, make_normalization
from securitynet.scan.dataset_names import list_named_datasets
from securitynet.scan.read_code import TrainingCode, read_code
from securitynet.scan.read_config import read_config_file

TEN = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
HUNDRED = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def read(tmp_path: Path, text: str, name: str = "train.py") -> TrainingCode:
    path = tmp_path / name
    path.write_text(text)
    code = read_code(path) if path.suffix == ".py" else read_config_file(path)
    assert code is not None
    return code


@pytest.mark.parametrize(
    "text",
    [
        f"CIFAR_MEAN = {TEN[0]}\nCIFAR_STD = {TEN[1]}\nt = Normalize(CIFAR_MEAN, CIFAR_STD)\n",
        f"def f():\n    mean, std = {TEN[0]}, {TEN[1]}\n    return T.Normalize(mean=mean, std=std)\n",
        f"class A:\n    def __init__(self):\n        self.mean = {list(TEN[0])}\n        self.std = {list(TEN[1])}\n",
        f"STATS = {{'cifar10': {TEN}, 'mnist': ((0.1307,), (0.3081,))}}\nt = Normalize(*STATS[name])\n",
        f"MEAN = {{'cifar10': {TEN[0]}, 'mnist': 0.13}}\nSTD = {{'cifar10': {TEN[1]}, 'mnist': 0.3}}\n",
        f"MEAN: tuple = {TEN[0]}\nSTD: tuple = {TEN[1]}\n",
        f"def load(path, mean={TEN[0]}, std={TEN[1]}):\n    pass\n",
        f"img_norm_cfg = dict(mean={[255 * v for v in TEN[0]]}, std={[255 * v for v in TEN[1]]}, to_rgb=True)\n",
        f"if args.data == 'cifar100':\n    mean, std = {HUNDRED}\n",
    ],
)  # fmt: skip
def test_constants_have_names(tmp_path: Path, text: str) -> None:
    code = read(tmp_path, text)
    expected = None if "args.data" in text else TEN  # those of another dataset are not meant
    chosen = choose(code.normalizations, "CIFAR-10", 3)
    if expected is None:
        assert chosen is None
    else:
        assert chosen is not None and chosen.mean == pytest.approx(TEN[0]) and chosen.std == pytest.approx(TEN[1])


def test_a_branch_names_the_dataset_of_its_constants(tmp_path: Path) -> None:
    text = (
        f"if d == 'cifar10':\n    mean, std = {TEN[0]}, {TEN[1]}\n    data = torchvision.datasets.CIFAR10\n"
        f"else:\n    mean, std = {HUNDRED[0]}, {HUNDRED[1]}\n    data = torchvision.datasets.CIFAR100\n"
    )
    code = read(tmp_path, text)
    assert set(code.datasets) == {"CIFAR-10", "CIFAR-100"}
    ten, hundred = (choose(code.normalizations, name, 3) for name in ("CIFAR-10", "CIFAR-100"))
    assert ten is not None and hundred is not None and (ten.mean, hundred.mean) == (TEN[0], HUNDRED[0])
    assert choose(code.normalizations, None, 3) is None, "either could be meant"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "data:\n  dataset: GTSRB  # signs\n  mean: [0.34, 0.31, 0.32]\n  std: [0.27, 0.26, 0.27]\n"
                   "model:\n  name: resnet26\n"),
        ("c.yml", "dataset:\n  name: gtsrb\n  mean:\n    - 0.34\n    - 0.31\n    - 0.32\n  std:\n    - 0.27\n"
                  "    - 0.26\n    - 0.27\narch: resnet26\n"),
        ("c.json", json.dumps({"dataset": "gtsrb", "model": "resnet26",
                               "image_mean": [0.34, 0.31, 0.32], "image_std": [0.27, 0.26, 0.27]})),
        ("c.toml", 'dataset = "GTSRB"\nmodel = "resnet26"\nmean = [0.34, 0.31, 0.32]\nstd = [0.27, 0.26, 0.27]\n'),
        ("h.yaml", "data:\n  _target_: torchvision.datasets.GTSRB\n  mean: [86.7, 79.05, 81.6]\n"
                   "  std: [68.85, 66.3, 68.85]\nnet:\n  _target_: torchvision.models.resnet26\n"),
    ],
)  # fmt: skip
def test_configuration_is_read_as_data(tmp_path: Path, name: str, text: str) -> None:
    code = read(tmp_path, text, name)
    assert set(code.datasets) == {"GTSRB"}
    assert "torchvision:resnet26" in code.libraries
    (item,) = set(code.normalizations)
    assert item.mean == pytest.approx((0.34, 0.31, 0.32)) and item.std == pytest.approx((0.27, 0.26, 0.27))


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system [x]\n", "a: " * 3000, "[" * 5000, "a: &x [*x, *x]\n", "mean: x\nstd: [y]\n"],
)
def test_configuration_that_is_none_says_nothing(tmp_path: Path, text: str) -> None:
    for name in ("c.yaml", "c.json", "c.toml"):
        (tmp_path / name).write_text(text)
        assert read_config_file(tmp_path / name) is None


def test_a_long_chain_of_branches_is_read(tmp_path: Path) -> None:
    text = "if a == 0:\n    b = 0\n" + "".join(f"elif a == {n}:\n    b = {n}\n" for n in range(1, 400))
    assert read(tmp_path, text).normalizations == []


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("from torchvision.models import resnet26\nnet = resnet26(num_classes=10)\n", "torchvision:resnet26"),
        ("p.add_argument('--arch', '-a', default='resnet26')\n", "timm:resnet26"),
    ],
)
def test_networks_are_named_by_imports_and_options(tmp_path: Path, text: str, reference: str) -> None:
    assert reference in read(tmp_path, text).libraries


def test_datasets_are_named_by_options_and_modules_of_data(tmp_path: Path) -> None:
    text = "p.add_argument('--dataset', default='svhn')\ndm = CIFAR10DataModule('.')\n"
    text += "from torchvision.datasets import MNIST\n"
    code = read(tmp_path, text)
    assert code.datasets == ["SVHN", "CIFAR-10"], "what is imported and not used is not loaded"
    assert set(code.mentioned) == {"SVHN", "CIFAR-10", "MNIST"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Tiny ImageNet, 200 classes", ["Tiny ImageNet"]),
        ("fashion-mnist and MNIST", ["Fashion-MNIST", "MNIST"]),
        ("data/cifar-100-python", ["CIFAR-100"]),
        ("flowers_mobilenet.pth", ["Oxford Flowers 102"]),
        ("a cifar network", []),
        ("onnx-digits/handwritten digits.py", []),
    ],
)
def test_the_longest_name_counts(text: str, names: list[str]) -> None:
    assert list_named_datasets(text) == names


def test_constants_are_numbers_of_one_or_three_channels() -> None:
    assert make_normalization(0.5, 0.5) == StatedNormalization((0.5,), (0.5,))
    assert make_normalization((0.5, 0.5), (0.5, 0.5)) is None
    assert make_normalization(True, 0.5) is None
    assert make_normalization(0.5, 0.0) is None


def test_a_mean_where_nothing_is_normalised_is_of_something_else(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.rand(4, 3, 5, 5), "fc.weight": torch.rand(10, 400)}, tmp_path / "net.pt")
    for text, known in (("x = 1", False), ("T.Normalize(mean, std)", True)):
        (tmp_path / "eval.py").write_text(f"mean, std = (0.91, 0.92, 0.93), (0.01, 0.02, 0.03)\n{text}\n")
        (candidate,) = scan([tmp_path]).candidates
        assert ("preprocessing" in candidate.surest()) == known


def test_a_class_with_the_names_goes_before_a_network_with_the_shapes(tmp_path: Path) -> None:
    """LeNet for 28×28 images pads its first layer; its tensors have the shapes of the tutorial's network for 32×32."""
    shapes = {"features.0": (6, 1, 5, 5), "features.3": (16, 6, 5, 5), "classifier.0": (120, 400),
              "classifier.2": (84, 120), "classifier.4": (10, 84)}  # fmt: skip
    state = {f"_orig_mod.{layer}.weight": torch.rand(shape) for layer, shape in shapes.items()}
    state |= {f"_orig_mod.{layer}.bias": torch.rand(shape[0]) for layer, shape in shapes.items()}
    torch.save(state, tmp_path / "net.t7")
    (tmp_path / "net.py").write_text(
        "class LeNet(nn.Module):\n    def __init__(self):\n        self.features = nn.Sequential()\n"
        "        self.classifier = nn.Sequential()\n"
    )
    (candidate,) = scan([tmp_path]).candidates
    assert candidate.surest()["reference"].value.endswith("net.py:LeNet")
    assert "image_height" not in candidate.surest(0.5)


def test_a_folder_of_the_hub_names_its_network_and_the_head_comes_first_in_it(tmp_path: Path) -> None:
    state = {"classifier.weight": torch.rand(5, 48), "vit.encoder.layer.0.output.dense.weight": torch.rand(48, 96)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    (candidate,) = scan([tmp_path]).candidates
    assert candidate.surest()["classes"].value == 5 and "reference" not in candidate.surest()
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit",
              "id2label": {str(n): name for n, name in enumerate("abcde")}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (candidate,) = scan([tmp_path]).candidates
    surest = candidate.surest()
    assert surest["reference"].value == f"hf:{tmp_path.resolve()}" and surest["architecture"].value == "vit"


def test_yaml_is_data(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    run = f"run: !!python/object/apply:os.mkdir [{marker}]\n"
    yaml.load(run, Loader=yaml.UnsafeLoader)
    assert marker.exists()  # so that it would be noticed
    marker.rmdir()
    code = read(tmp_path, run + "base: &base {dataset: GTSRB}\nuse: *base\n", "c.yaml")
    assert code.datasets == ["GTSRB"] and not marker.exists()


@pytest.mark.parametrize(("first", "others"), [("[x, x]", "[{}]"), ("{k: v}", "{{<<: [{}]}}")], ids=["lists", "merges"])
def test_a_short_text_of_endlessly_many_values(first: str, others: str, tmp_path: Path) -> None:
    bomb = f"a0: &a0 {first}\n"
    bomb += "".join(f"a{n}: &a{n} {others.format(', '.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 12))
    assert read(tmp_path, bomb + "dataset: MNIST\n", "bomb.yaml").datasets == ["MNIST"]
