"""Studies of catalog entries use the weights that each entry means, and publish under it nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import securitynet.catalog
from securitynet.catalog.catalog import Catalog
from securitynet.errors import ConfigurationError
from securitynet.files import parse_toml
from securitynet.models.architectures.factory import build
from securitynet.models.sources.references import list_code
from securitynet.records import Check
from securitynet.results.study_targets import StudyTargetRecord
from securitynet.studies.definition.file import parse_study
from securitynet.studies.definition.file_digests import FileDigests
from securitynet.studies.definition.plan import StudyPlan, expand
from securitynet.studies.definition.targets import expand_targets
from securitynet.studies.execution.publish import find_publishing_obstacle

ATTACK = '[[attacks]]\nname = "correctness"\n'


def plan(catalog: str, models: str, base: Path) -> StudyPlan:
    data = '[data]\ndataset = "digits"\nlimit = 60\nnormalize = "none"\nhead = "logits"\n'
    content = parse_toml(f'name = "x"\ncatalog = "{catalog}"\n{data}{models}{ATTACK}')
    study, digests = parse_study(content), FileDigests()
    return expand(study, base, "", digests, expand_targets(study, base, digests, list(list_code(content))))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("weights")
    for number in range(3):
        torch.manual_seed(number)
        torch.save(build("simple-cnn", 10, 1, 8).state_dict(), folder / f"{number}.pth")
    return sorted(folder.iterdir())


@pytest.fixture
def url(tmp_path: Path, weights: list[Path]) -> str:
    """Three entries of one network, with different weights."""
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    codes = {"reference": "arch:simple-cnn", "head": "classifier", "task_type": "classification", "dataset": "digits"}
    with securitynet.catalog.open(url) as catalog:
        for path in weights:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            catalog.add({"name": path.stem, "checksum": f"sha256:{digest}", "weights_file": str(path), **codes})
    return url


def test_a_query_plans_every_set_of_weights(url: str, weights: list[Path], tmp_path: Path) -> None:
    planned = plan(url, '[[models]]\nquery = ""\n', tmp_path).targets
    assert sorted(target.options["weights"] for target in planned) == [str(path) for path in weights]
    assert len({target.key for target in planned}) == 3 and {target.obstacle for target in planned} == {None}
    assert all(target.enforced and target.enforced.startswith("sha256:") for target in planned)


def test_an_entry_without_its_weights_is_an_obstacle(url: str, tmp_path: Path) -> None:
    with Catalog(url) as catalog:
        catalog.edit("0", {"weights_file": ""})
    entry = plan(url, '[[models]]\ncatalog = "0"\n', tmp_path).targets[0]
    assert "names a network and no file of weights" in str(entry.obstacle)
    (tmp_path / "net.py").write_text("")
    named = plan(url, '[[models]]\nreference = "python:net.py:make"\ncatalog = "0"\n', tmp_path).targets[0]
    assert "names a network and no file of weights" in str(named.obstacle)
    other = '[[models]]\ncatalog = "1"\nchecksum = "00112233445566778899"\nweights = "/absent"\n'
    assert plan(url, other, tmp_path).targets[0].obstacle is not None


def test_weights_at_an_address_are_part_of_the_target(url: str, tmp_path: Path) -> None:
    keys = set()
    for address in ("https://example.org/a.pth", "https://example.org/b.pth"):
        with Catalog(url) as catalog:
            catalog.edit("0", {"weights_file": address})
        target = plan(url, '[[models]]\ncatalog = "0"\n', tmp_path).targets[0]
        assert target.weights_url == address and target.obstacle is None and "weights" not in target.options
        keys.add(target.key)
    assert len(keys) == 2


def test_a_query_plans_what_search_finds_and_says_why_not(url: str, tmp_path: Path) -> None:
    with Catalog(url) as catalog:
        for name in ("0", "1", "2"):
            catalog.edit(name, {"task_type": "other"})
    with pytest.raises(ConfigurationError, match="3 × its task type is other"):
        plan(url, '[[models]]\nquery = ""\n', tmp_path)
    with pytest.raises(ConfigurationError, match="No entry of the catalog matches") as told:
        plan(url, '[[models]]\nquery = ""\nfilters = { dataset = ["SVHN", "STL-10"] }\n', tmp_path)
    command = str(told.value.hint).partition(": ")[2]
    assert command.startswith("securitynet catalog search ") and "--dataset SVHN,STL-10" in command
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = command.replace("securitynet", f"{sys.executable} -m securitynet.cli.main", 1)
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "No entry matches" in done.stderr, done.stderr


def test_what_may_be_published(url: str) -> None:
    def record(*, found: str | None = None, agrees: bool = True, **declared: str) -> StudyTargetRecord:
        said = found or ""
        checks = [Check(what="checksum", said=said, found=said, agrees=agrees)] if found else []
        return StudyTargetRecord(
            key="k", label="a", status="ok", catalog=entry.id, declared=declared, checks=checks, finished="2026-01-01"
        )

    with Catalog(url) as catalog:
        entry = catalog.get("0")
        right = str(entry.checksum)
        assert find_publishing_obstacle(record(model="arch:simple-cnn", weights="0.pth", found=right), catalog) is None
        bare = right.removeprefix("sha256:")[:16]
        assert find_publishing_obstacle(record(model="arch:simple-cnn", weights="0.pth", found=bare), catalog) is None
        other = "sha256:" + "0" * 64
        assert "not those of" in str(
            find_publishing_obstacle(record(model="arch:simple-cnn", weights="1", found=other), catalog)
        )
        wrong = record(model="arch:simple-cnn", weights="0.pth", found=right, agrees=False)
        assert "do not have the stated checksum" in str(find_publishing_obstacle(wrong, catalog))
        assert "not compared" in str(
            find_publishing_obstacle(record(model="arch:simple-cnn", weights="0.pth"), catalog)
        )
        assert "no weights were given" in str(find_publishing_obstacle(record(model="python:net.py:make"), catalog))
        catalog.edit("0", {"checksum": ""})
        assert "no weights were given" in str(find_publishing_obstacle(record(model="python:net.py:make"), catalog))
        assert find_publishing_obstacle(record(model="arch:simple-cnn", weights="0.pth"), catalog) is None
        catalog.edit("0", {"reference": "timm:resnet18", "checksum": "sha256:11223344"})
        assert find_publishing_obstacle(record(model="timm:resnet18"), catalog) is None, "the library's own weights"
        assert "its model is" in str(find_publishing_obstacle(record(model="timm:resnet34"), catalog))


@pytest.mark.slow
def test_changed_weights_are_refused_and_not_published(url: str, weights: list[Path], tmp_path: Path) -> None:
    """Run, publish; then a file changes under its entry: that target fails, and keeps its earlier values."""
    file = tmp_path / "changed.pth"
    file.write_bytes(weights[0].read_bytes())
    with Catalog(url) as catalog:
        catalog.edit("0", {"weights_file": str(file)})
    study = tmp_path / "study.toml"
    study.write_text(
        f'name = "x"\ncatalog = "{url}"\n[data]\ndataset = "digits"\nlimit = 60\nnormalize = "none"\nhead = "logits"\n'
        f'[[models]]\nquery = ""\n{ATTACK}'
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "securitynet.cli.main", "study", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    out = tmp_path / "out"
    done = run("run", study, "--out", out, "--workers", 1, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] == 3
    published = run("publish", out, "--catalog", url)
    assert published.returncode == 0 and "of 3 entries" in published.stderr, published.stderr
    file.write_bytes(weights[1].read_bytes())
    again = run("run", study, "--out", out, "--workers", 1, "--threads", 1, "--json")
    assert again.returncode == 4 and "does not hold the weights" in again.stderr, again.stderr
    with Catalog(url) as catalog:
        values = [{m.source for m in catalog.details(name).measured} for name in ("0", "1", "2")]
    assert all(values) and not values[0] & values[1]


def test_a_file_that_nothing_identifies_needs_trust(url: str, tmp_path: Path) -> None:
    """The path in an entry may be that of any file; only a checksum, or the user, says that it is meant."""
    with Catalog(url) as catalog:
        catalog.edit("0", {"checksum": ""})
        identifier = catalog.get("0").id
    content = parse_toml(
        f'name = "x"\ncatalog = "{url}"\n[data]\ndataset = "digits"\n[[models]]\ncatalog = "0"\n{ATTACK}'
    )
    with pytest.raises(ConfigurationError, match=f"no checksum of it.*--trust {identifier}"):
        expand_targets(parse_study(content), tmp_path, FileDigests())
    assert expand_targets(parse_study(content), tmp_path, FileDigests(), [identifier]).targets[0].options["weights"]
