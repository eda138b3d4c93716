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
from securitynet.models.sources.robustbench import convert, join_parts
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

    whole = torch.nn.Sequential()
    whole.add_module("normalize", Normalize())
    whole.add_module("model", inner)
    converted = convert({**inner.state_dict(), "conv1.scores": torch.zeros(3)}, whole)
    assert converted.keys() == whole.state_dict().keys()
    assert torch.equal(converted["normalize.mean"], torch.full((1, 3, 1, 1), 0.4))


def test_each_file_of_an_ensemble_fills_one_of_its_networks() -> None:
    torch.manual_seed(3)
    members = [WideResNet(10, 1, 10).state_dict() for _ in range(2)]
    ensemble = torch.nn.Module()
    ensemble.models = torch.nn.ModuleList([WideResNet(10, 1, 10), WideResNet(10, 1, 10)])
    ensemble.load_state_dict(join_parts([dict(member) for member in members], ensemble))
    for number, member in enumerate(members):
        assert torch.equal(ensemble.models[number].conv1.weight, member["conv1.weight"])
    with pytest.raises(WeightsMismatch, match="File 2 of the ensemble"):
        join_parts([dict(members[0])] * 3, ensemble)


def test_a_downloaded_file_that_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "name.pt"
    file.write_bytes(b"weights")
    package.check_part(file, RESNET)  # laid by the user: no digest of a download lies beside it
    (tmp_path / "name.pt.sha256").write_text("0" * 64)
    with pytest.raises(ModelError, match="have changed since they were downloaded"):
        package.check_part(file, RESNET)
