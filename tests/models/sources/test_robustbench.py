"""RobustBench's models: its definitions where its package is installed, the names of the tensors where it is not."""

import importlib.metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from securitynet.errors import ModelError, WeightsMismatch
from securitynet.models.architectures.factory import build
from securitynet.models.architectures.wide_resnet import WideResNet
from securitynet.models.loading.open import open_network
from securitynet.models.sources import _robustbench as package
from securitynet.models.sources import open_source
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.robustbench import convert_robustbench, join_parts
from securitynet.models.sources.weight_sets import choose_set
from securitynet.models.sources.weights import read_weight_parts
from securitynet.models.targets.backends.base import LoadOptions

installed = pytest.mark.skipif(
    not any(importlib.metadata.distributions(name="robustbench")),
    reason="RobustBench's package is not installed: pip install --no-deps robustbench torchdiffeq geotorch",
)
RESNET = "robustbench:cifar10:Linf:Sehwag2021Proxy_R18"
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def outputs(reference: str, file: Path | None) -> torch.Tensor:
    options = LoadOptions(torch.device("cpu"), weights=file)
    opened = open_network(parse_reference(reference), options, None)
    return torch.as_tensor(opened.backend.outputs(IMAGES))


@pytest.fixture()
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECURITYNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SECURITYNET_CACHE", str(tmp_path / "cache"))
    return tmp_path


def lay(folders: Path, reference: str, content: object) -> Path:
    """Put a file where RobustBench's own layout has it, below the user's data folder."""
    dataset, threat, name = reference.split(":")[1:]
    path = folders / "data" / "robustbench" / dataset / threat / f"{name}.pt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return path


@installed
@pytest.mark.parametrize("wrapped", ["training", "last and best"])
def test_a_file_that_is_laid_gives_what_robustbench_computes(folders: Path, wrapped: str) -> None:
    dataset, threat, name = ("cifar10", "Linf", "Sehwag2021Proxy_R18")
    if wrapped == "last and best":  # its normaliser's constants are in the definition, not in the file
        threat, name = "corruptions", "Kireev2021Effectiveness_RLAT"
    torch.manual_seed(1)
    theirs = package.find_definition(dataset, threat, name).build().eval()
    state = {key: value for key, value in theirs.state_dict().items() if key not in ("mu", "sigma")}
    content = {
        "training": {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3},
        "last and best": {"last": state, "best": {key: torch.zeros_like(value) for key, value in state.items()}},
    }[wrapped]
    reference = f"robustbench:{dataset}:{threat}:{name}"
    lay(folders, reference, content)
    with torch.no_grad():
        expected = theirs(IMAGES)
    assert torch.allclose(outputs(reference, None), expected, atol=1e-4)


@installed
def test_models_that_timm_registers_are_built_by_their_own_names() -> None:
    source = open_source(parse_reference("robustbench:cifar100:Linf:Debenedetti2022Light_XCiT-S12"))
    assert (source.num_classes, source.fixed_classes) == (100, True)
    definition = package.find_definition("cifar100", "Linf", "Debenedetti2022Light_XCiT-S12")
    assert definition.timm["url"].endswith(".pth.tar") or definition.timm["url"].startswith("https://")


@installed
def test_names_that_it_has_not_are_corrected() -> None:
    with pytest.raises(ModelError, match="Sehwag2021Proxy_R18"):
        open_source(parse_reference("robustbench:cifar10:Linf:Sehwag2021Proxi_R18"))


def test_without_the_package_a_wide_resnet_is_filled_by_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "is_installed", lambda: False)
    torch.manual_seed(2)
    network = build("resnet18", 10).eval()
    older = {
        key.replace(".downsample.", ".shortcut.").replace("fc.", "linear."): value
        for key, value in network.state_dict().items()
    }
    constants = {"mu": torch.full((1, 3, 1, 1), 0.4), "sigma": torch.full((1, 3, 1, 1), 0.2)}
    save_file(older | constants, tmp_path / "weights.safetensors")
    options = LoadOptions(torch.device("cpu"), weights=tmp_path / "weights.safetensors")
    opened = open_network(parse_reference(RESNET), options, None)
    assert opened.preprocessing is not None  # the file states it, since no definition does
    assert opened.preprocessing.constants() == "0.4,0.4,0.4/0.2,0.2,0.2"
    with torch.no_grad():
        expected = network((IMAGES - 0.4) / 0.2)
    assert torch.allclose(torch.as_tensor(opened.backend.outputs(opened.preprocessing(IMAGES))), expected, atol=1e-4)


def test_without_the_package_other_networks_say_what_is_missing(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "is_installed", lambda: False)
    with pytest.raises(ModelError) as missing:
        open_source(parse_reference("robustbench:cifar10:Linf:Debenedetti2022Light_XCiT-S12"))
    assert "pip install --no-deps robustbench" in str(missing.value.hint)
    source = open_source(parse_reference(RESNET))
    assert source.fetch is not None
    with pytest.raises(ModelError) as absent:
        source.fetch(None)
    assert str(folders / "data" / "robustbench" / "cifar10" / "Linf") in str(absent.value.hint)


def test_a_file_for_imagenet_is_put_inside_the_normalising_network() -> None:
    inner = WideResNet(10, 1, 10)

    class Normalize(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4))
            self.register_buffer("std", torch.full((1, 3, 1, 1), 0.2))
            self.register_buffer("mu", torch.zeros(1, 3, 1, 1), persistent=False)  # no file holds it

    whole = torch.nn.Sequential()
    whole.add_module("normalize", Normalize())
    whole.add_module("model", inner)
    for prefix in ("", "module.", "module.model."):
        state = {f"{prefix}{key}": value for key, value in inner.state_dict().items()}
        converted = convert_robustbench({**state, f"{prefix}conv1.scores": torch.zeros(3)}, whole)
        assert converted.keys() == whole.state_dict().keys()
        assert torch.equal(converted["model.conv1.weight"], inner.conv1.weight)
        assert torch.equal(converted["normalize.mean"], torch.full((1, 3, 1, 1), 0.4))


def test_each_file_of_an_ensemble_fills_one_of_its_networks() -> None:
    torch.manual_seed(3)
    members = [WideResNet(10, 1, 10).state_dict() for _ in range(2)]
    ensemble = torch.nn.Module()
    ensemble.models = torch.nn.ModuleList([WideResNet(10, 1, 10), WideResNet(10, 1, 10)])
    ensemble.load_state_dict(join_parts([[dict(member)] for member in members], ensemble))
    for number, member in enumerate(members):
        assert torch.equal(ensemble.models[number].conv1.weight, member["conv1.weight"])
    with pytest.raises(WeightsMismatch, match="File 2 of the ensemble"):
        join_parts([[dict(members[0])]] * 3, ensemble)


class Mixed(torch.nn.Module):
    """Two networks, mixed by a third one, as in Bai et al.: it is registered twice, and holds a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        inner = torch.nn.Module()
        inner.models = torch.nn.ModuleList([WideResNet(10, 1, 10), WideResNet(10, 2, 10)])
        inner.policy = torch.nn.Linear(3, 1, bias=False)
        inner.bn = torch.nn.BatchNorm1d(1, affine=False)
        inner.scale = torch.nn.Parameter(torch.tensor(2.5), requires_grad=False)
        self.whole = inner
        self._whole = inner


def test_an_ensemble_takes_all_sets_of_its_files_and_its_own_numbers(tmp_path: Path) -> None:
    torch.manual_seed(4)
    theirs, ours = Mixed(), Mixed()
    torch.nn.init.constant_(theirs.whole.bn.running_mean, 0.7)
    parts = [theirs.whole.models[0], theirs.whole.models[1]]
    files = [{"state_dict": {f"module.{key}": value for key, value in part.state_dict().items()}} for part in parts]
    mixing = {"model": theirs.whole.policy.state_dict(), "bn": theirs.whole.bn.state_dict()}
    for number, content in enumerate([*files, mixing]):
        torch.save(content, tmp_path / f"{number}.pt")
    read = [read_weight_parts(tmp_path / f"{number}.pt") for number in range(3)]
    assert [len(sets) for sets in read] == [1, 1, 2]
    joined = join_parts(read, ours)
    save_file(joined, tmp_path / "joined.safetensors")  # it holds no tensor twice
    ours.load_state_dict(convert_robustbench(joined, ours))
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    with pytest.raises(WeightsMismatch, match=r"No file of the ensemble holds whole\.bn\.running_mean"):
        join_parts([*read[:2], read[2][:1]], Mixed())


def test_networks_that_timm_reads_take_the_average_and_say_so() -> None:
    content = {"state_dict": {"conv.weight": torch.zeros(2, 2)}, "state_dict_ema": {"conv.weight": torch.ones(2, 2)}}
    chosen = choose_set(content, preferred=("state_dict_ema", "model_ema"))
    assert float(chosen.content["conv.weight"].mean()) == 1
    assert "state_dict_ema is taken; --weight-set takes the other: state_dict." in chosen.notes[0]


def test_copies_to_a_gpu_and_prints_of_constructors_are_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    def build_it() -> torch.nn.Module:
        print("The network has 6 parameters.")
        network = torch.nn.Linear(2, 2)
        network.mean = torch.full((3, 1, 1), 0.5).cuda()
        return network

    network = package.build_robustbench_network(package.Definition(build_it, (), "", {}))
    assert network.mean.device.type == "cpu"
    assert capsys.readouterr().out == ""


def test_a_downloaded_file_that_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "name.pt"
    file.write_bytes(b"weights")
    package.check_part(file, RESNET)  # laid by the user: no digest of a download lies beside it
    (tmp_path / "name.pt.sha256").write_text("0" * 64)
    with pytest.raises(ModelError, match="have changed since they were downloaded"):
        package.check_part(file, RESNET)
