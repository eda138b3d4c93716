"""Folders of repositories are searched for classifiers; weights, code and history are read, and nothing is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch

from securitynet.catalog.catalog import Catalog
from securitynet.errors import ConfigurationError
from securitynet.models.architectures.factory import build
from securitynet.scan import scan
from securitynet.scan.candidates import accept
from securitynet.scan.read_code import read_code
from securitynet.scan.read_history import read_training_history
from securitynet.scan.recognise_network import recognise_network

NETS = Path(__file__).parents[3] / "shared" / "data" / "tutorial-nets"

TRAIN = """
import os; os.system("touch {marker}")
transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))])
trainset = torchvision.datasets.CIFAR10(root="data", transform=transform)
classes = ("plane", "car", "bird")
torch.save(net.state_dict(), "net.pth")
"""
MODEL = """
class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 5)
        self.last = nn.Linear(5, 3)
"""


class Execute:
    """A pickle that runs a command when it is read carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks") / "executed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, marker: Path) -> Path:
    """Two repositories: one with code, licence, history and a trap in its configuration; one with odd files."""
    folder = tmp_path_factory.mktemp("repositories")
    first, second = folder / "first", folder / "mnist-odd"
    first.mkdir()
    second.mkdir()
    torch.manual_seed(0)
    state = build("tutorial-cnn", 10).state_dict()
    torch.save(state, first / "net.pth")
    safetensors.torch.save_file({f"module.{key}": value for key, value in state.items()}, first / "copy.safetensors")
    (first / "train.py").write_text(TRAIN.format(marker=marker))
    (first / "LICENSE").write_text("MIT License\n\nPermission is hereby granted, free of charge, to any person")
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for number, name in enumerate(("ann", "bob", "ann")):
        who = ["-c", f"user.name={name}", "-c", f"user.email={name}@example.org"]
        dated = environment | {"GIT_AUTHOR_DATE": f"{2019 + number}-01-01T00:00:00Z"}
        for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
            subprocess.run(["git", *command], cwd=first, check=True, env=dated)
    with (first / ".git" / "config").open("a") as config:
        config.write(f'[core]\n\tfsmonitor = "touch {marker}; false"\n\tpager = "touch {marker}"\n')
        config.write(f'[log]\n\tshowSignature = true\n[gpg]\n\tprogram = "touch {marker}"\n')
        config.write('[remote "origin"]\n\turl = https://user:secret@github.com/ann/nets.git\n')
    torch.save({"first.weight": torch.rand(5, 12), "first.bias": torch.rand(5),
                "last.weight": torch.rand(3, 5), "last.bias": torch.rand(3)}, second / "odd.pt")  # fmt: skip
    (second / "model.py").write_text(MODEL)
    (second / "bad.pkl").write_bytes(pickle.dumps(Execute(marker)) + b" " * 600)
    (second / "page.pth").write_text("<html>" + " " * 600)
    (second / "link.pth").symlink_to(first / "net.pth")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path):
    return scan([folder])


def test_nothing_that_is_found_is_run(report, marker: Path) -> None:
    assert not marker.exists()
    assert report.files == 5  # the link is not followed
    assert set(report.refused) == {"mnist-odd/bad.pkl", "mnist-odd/page.pth"}


def test_weights_code_and_history_are_read(report, folder: Path) -> None:
    first = report.candidates[0]
    assert first.paths == ("first/copy.safetensors", "first/net.pth"), "equal weights are one candidate"
    surest = first.surest()
    values = {code: item.value for code, item in surest.items()}
    assert values["reference"] == "arch:tutorial-cnn" and values["dataset"] == "CIFAR-10"
    assert (values["classes"], values["image_channels"], values["image_height"]) == (10, 3, 32)
    assert values["preprocessing"] == {"mean": [0.5] * 3, "std": [0.25] * 3}
    assert (values["license"], values["year"], values["authors"]) == ("mit", 2019, 2)
    assert values["parameters"] == 62006
    assert first.confidence > 0.9
    assert values["code_link"] == "https://github.com/ann/nets", "without the user's password"
    assert "secret" not in json.dumps(first.row())


def test_a_network_that_is_not_known_is_named_by_its_class_and_not_sure(report, folder: Path) -> None:
    odd = report.candidates[1]
    surest = odd.surest()
    assert surest["reference"].value == f"python:{folder.resolve()}/mnist-odd/model.py:Odd"
    assert surest["classes"].value == 3 and 0 < odd.confidence < 0.9
    assert "dataset" not in surest, "MNIST, which the path names, has ten classes"


def test_accepted_candidates_become_entries_with_their_evidence(report) -> None:
    with Catalog("sqlite://") as catalog:
        assert catalog.add_items(accept(report.candidates, 0.9), "scan").added == 1
        assert catalog.add_items(accept(report.candidates, 0.9), "scan").total == 1
        (entry,) = list(catalog.query())
        details = catalog.details(entry.id)
        assert entry.reference == "arch:tutorial-cnn" and str(entry.weights_file).endswith("first/copy.safetensors")
        assert str(entry.checksum).startswith("tensors:")
        assert "names and shapes" in details.sources["reference"]
        assert entry.dataset == "CIFAR-10" and "loads it (0.95)" in details.sources["dataset"]


def test_a_notebook_is_code_and_bad_code_is_left_out(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["!pip install x\n", "data = datasets.SVHN('.')\n"]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    code = read_code(tmp_path / "a.ipynb")
    assert code is not None and code.datasets == ["SVHN"]
    for text in ("def (", "(" * 5000, "x = '\0'"):
        (tmp_path / "bad.py").write_text(text)
        assert read_code(tmp_path / "bad.py") is None
    (tmp_path / "other.py").write_text("dogs.CIFAR10(); cifar10(); Normalize(mean, std); classes = [1, 2]\n")
    other = read_code(tmp_path / "other.py")
    assert other is not None and not (other.datasets or other.normalizations or other.class_names)


def test_a_folder_without_history_says_nothing(tmp_path: Path) -> None:
    history = read_training_history(tmp_path)
    assert (history.license, history.year, history.authors, history.commit, history.address) == (None,) * 5
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: ../../../../etc/passwd")
    assert read_training_history(tmp_path).commit is None
    with pytest.raises(ConfigurationError, match="no folder"):
        scan([tmp_path / "absent"])


@pytest.mark.parametrize(
    ("name", "classes", "channels", "size"), [("cifar-resnet20", 7, 1, 32), ("simple-cnn", 10, 1, 28)]
)
def test_a_wrapper_hides_no_network(name: str, classes: int, channels: int, size: int) -> None:
    state = build(name, classes, channels, size).state_dict()
    for prefix in ("", "module.", "model.module."):
        network = recognise_network({f"{prefix}{key}": value for key, value in state.items()})
        assert network is not None and network.reference == f"arch:{name}" and network.exact
        assert (network.shape.num_classes, network.shape.channels) == (classes, channels)
    assert recognise_network({"a.weight": torch.rand(3, 4)}) is None


def test_files_above_the_limit_are_not_read(folder: Path) -> None:
    report = scan([folder / "first"], max_size=1024)
    assert not report.candidates and all("larger than" in reason for reason in report.refused.values())


@pytest.mark.slow
def test_the_tutorial_networks() -> None:
    """28 networks of the tutorial are recognised, and no other file is called one with confidence."""
    if not NETS.is_dir():
        pytest.skip("the tutorial networks are not beside the repository")
    report = scan([NETS])
    sure = {path for candidate in report.candidates if candidate.confidence >= 0.9 for path in candidate.paths}
    assert sure == {f"net-{number:02}.pth" for number in range(1, 29)}
    assert list(report.refused) == ["other-07.pth"] and report.files == 38
    with Catalog("sqlite://") as catalog:
        catalog.add_items(accept(report.candidates, 0.9), "scan")
        assert catalog.query().count() == 28 == len({entry.checksum for entry in catalog.query()})


def test_git_is_found() -> None:
    """The test of histories would otherwise test nothing."""
    assert shutil.which("git") is not None
