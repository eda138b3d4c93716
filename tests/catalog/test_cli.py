"""The command line: what it prints, its exit codes, and that its options are the codebook's."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from securitynet.catalog.codebook import as_markdown, load_codebook
from securitynet.cli.catalog import app
from securitynet.errors import SecurityNetError

ROOT = Path(__file__).parents[2]


class Cli:
    def __init__(self, db: Path) -> None:
        self.db = db

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--db", str(self.db)], input=stdin)
        if isinstance(result.exception, SecurityNetError):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "catalog.sqlite")


@pytest.fixture
def filled(cli: Cli) -> Cli:
    for number, (dataset, accuracy) in enumerate([("cifar10", 0.9), ("cifar10", 0.95), ("svhn", 0.97)]):
        arguments = ["--dataset", dataset, "--claimed-accuracy", str(accuracy), "--reference", f"hf:me/m{number}"]
        more = ["--head", "classifier", "--task-type", "classification", "--purpose", "benchmark"]
        cli(
            "add",
            "--name",
            f"m{number}",
            "--architecture",
            ("resnet20", "vgg16", "densenet121")[number],
            *arguments,
            *more,
        )
    return cli


def test_import_search_show(cli: Cli, published: Path) -> None:
    report = cli.json("import", str(published))
    assert report["by_purpose"] == {"benchmark": 437, "security": 92} and report["papers"]["added"] == 102
    found = cli.json("search", "resnet20", "--dataset", "CIFAR-10,SVHN", "--year", "2016", "--sort", "name")
    assert [entry["name"] for entry in found["entries"]] == ["resnet20_cifar10", "resnet20_svhn"] and found[
        "after"
    ] is None
    shown = cli.json("show", found["entries"][0]["id"])
    assert shown["dataset"] == "CIFAR-10" and {m["name"] for m in shown["measurements"]} >= {
        "accuracy.test",
        "stealing.accuracy",
    }
    assert len(cli.json("papers")) == 102
    stats = cli.json("stats")
    assert stats["purposes"] == {"benchmark": 437, "security": 92} and stats["distinct"]["dataset"] == 22
    assert [item["dataset"] for item in cli.json("compare")] == ["CIFAR-10", "ImageNet-1k"]
    assert "CIFAR-10" in cli("compare").stdout and "Publishing year" in cli("stats").stdout


def test_search_outputs_and_pages(filled: Cli) -> None:
    assert "m2" in filled("search").stdout
    rows = list(csv.DictReader(io.StringIO(filled("search", "--output", "csv").stdout)))
    assert [row["name"] for row in rows] == ["m0", "m1", "m2"]
    assert filled("search", "--claimed-accuracy", ">=0.95", "--count").stdout.strip() == "2"
    first = filled.json("search", "--sort", "-claimed_accuracy", "--limit", "2")
    second = filled.json("search", "--sort", "-claimed_accuracy", "--limit", "2", "--after", first["after"])
    assert [entry["name"] for entry in first["entries"] + second["entries"]] == ["m2", "m1", "m0"]
    assert "Did you mean ResNet?" in filled("search", "--family", "ResNt").stderr
    with pytest.raises(SecurityNetError, match="no output"):
        filled("search", "--output", "xml")


def test_edit_and_history(filled: Cli) -> None:
    assert "license: None -> MIT" in filled("edit", "m0", "--license", "MIT", "--note", "asked").stdout
    assert filled("edit", "m0", "--license", "MIT").stdout == "as before\n"
    for wrong in ([], ["--withdraw", "--restore"], ["--same-as", "m1", "--no-duplicate"]):
        with pytest.raises(SecurityNetError, match=r"contradict|Nothing was given"):
            filled("edit", "m0", *wrong)
    filled("edit", "m0", "--clear", "license")
    states = filled.json("history", "m0")
    assert [state["note"] for state in states] == [None, "asked", None]
    assert states[1]["differences"] == {"license": [None, "MIT"]}
    assert "asked" in filled("history", "m0").stdout
    assert filled.json("show", "m0", "--at", "2999-01-01")["version"] == 3
    with pytest.raises(SecurityNetError, match="was not there"):
        filled("show", "m0", "--at", "2001-01-01")
    filled("edit", "m1", "--same-as", "m0")
    assert filled.json("show", "m0")["duplicates"] == {"manual:m1@CIFAR-10": "by hand"}
    filled("edit", "m1", "--no-duplicate")
    filled("edit", "m1", "--withdraw", "--note", "gone")
    assert filled("search", "--count").stdout.strip() == "2"


def test_add_interactively_asks_again_after_a_wrong_answer(cli: Cli) -> None:
    book = [info for info in load_codebook().values() if info.name != "key"]
    given = {"name": "asked", "purpose": ["benchmrk", "security"], "year": "2020", "dataset": "cifar10"}
    lines: list[str] = []
    for info in book:
        answer = given.get(info.name, "")
        lines += answer if isinstance(answer, list) else [answer]
    result = cli("add", "--interactive", stdin="\n".join(lines) + "\n")
    assert "Did you mean benchmark" in result.stderr
    shown = cli.json("show", "asked")
    assert (shown["purpose"], shown["year"], shown["classes"], shown["source"]) == ("security", 2020, 10, "manual")


def test_add_from_a_file_and_export(filled: Cli, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("source,name,year\nme,a,2020\nme,b,soon\n")
    result = filled("add", "--file", str(path))
    assert "1 added" in result.stdout and "line 3" in result.stderr
    filled("export", str(tmp_path / "out.jsonl"), "--dataset", "CIFAR-10")
    assert [json.loads(line)["name"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["m0", "m1"]
    with pytest.raises(SecurityNetError, match="cannot be written"):
        filled("export", str(tmp_path / "out.xml"))


def test_select_writes_a_model_list(filled: Cli, tmp_path: Path) -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    out = tmp_path / "models.toml"
    result = filled("select", "2", "--seed", "3", "--out", str(out))
    models = tomllib.loads(out.read_text())["models"]
    assert len(models) == 2 and all(model["reference"].startswith("hf:me/") for model in models)
    assert "family: 2 of 3; not covered:" in result.stderr
    assert tomllib.loads(filled("select", "2", "--seed", "3").stdout)["models"] == models
    assert filled.json("select", "1", "--cover", "dataset")["missing"]["dataset"]


def test_agreement(filled: Cli, tmp_path: Path) -> None:
    for coder, values in {
        "ann": ("natural", "medical"),
        "ben": ("natural", "face"),
        "cem": ("natural", "face"),
    }.items():
        lines = [f"m{number},{value}" for number, value in enumerate(values)]
        (tmp_path / f"{coder}.csv").write_text("\n".join(["entry,topic_category", *lines]) + "\n")
    files = [str(tmp_path / f"{coder}.csv") for coder in ("ann", "ben", "cem")]
    found = filled.json("agreement", *files)
    assert found["agreement"][-1]["code"] == "all" and found["agreement"][0]["fleiss"] is not None
    assert found["disagreements"][0]["majority"] == "face" and found["entries_changed"] is None
    assert "1 entries changed, 0 disagreements left" in filled("agreement", "--resolve").stdout
    assert filled.json("show", "m1")["topic_category"] == "face"
    decided = filled("agreement", "--decide", "m1:topic_category=plant")
    assert "1 entries changed" in decided.stdout and filled.json("show", "m1")["topic_category"] == "plant"


def test_validate_exit_code(filled: Cli) -> None:
    assert filled("validate").stdout == ""
    filled("edit", "m0", "--classes", "100")
    result = filled("validate", code=1)
    assert "error: manual:m0@CIFAR-10: classes: 100, where CIFAR-10 has 10" in result.stdout


def test_collect_needs_a_name(cli: Cli) -> None:
    with pytest.raises(SecurityNetError, match="No collector"):
        cli("collect")
    with pytest.raises(SecurityNetError, match="Did you mean timm"):
        cli("collect", "tim")
    found = cli.json("collect", "pytorchcv")
    assert found["collectors"][0]["added"] > 500 and found["total"] == found["tasks"]["classification"]


def test_every_code_is_a_filter_and_a_value() -> None:
    for command in ("search", "stats", "select", "compare", "validate", "export", "add", "edit"):
        result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        for info in load_codebook().values():
            assert info.option in result.output, (command, info.option)


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "catalog.md").read_text()
    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert (command.callback.__doc__ or "").strip(), name
        assert f"catalog {name}" in page, f"docs/catalog.md does not name `catalog {name}`"


def test_the_docs_codebook_is_the_codes() -> None:
    assert as_markdown().strip() in (ROOT / "docs" / "catalog.md").read_text(), (
        "copy what `securitynet catalog codebook` prints to the end of docs/catalog.md"
    )


def test_totals_say_of_which_kinds(filled: Cli) -> None:
    filled("add", "--name", "tower", "--task-type", "zero-shot classification", "--head", "embedding")
    filled("add", "--name", "backbone", "--task-type", "feature extraction", "--head", "none")
    filled("edit", "m2", "--same-as", "m1")
    kinds = "2 classifiers, 1 zero-shot classifiers, 1 pretrained backbones that need a head"
    assert f"4 image-classification models, duplicates counted once: {kinds}" in filled("stats").stdout
    assert filled("search", "--count").stdout == "4\n"
    filled("add", "--name", "detector", "--task-type", "detection")
    filled("add", "--name", "riddle")
    assert filled("stats").stdout.startswith("6 models, duplicates counted once: ")
    assert "1 for detection, 1 of unknown task" in filled("stats").stdout.replace("\n", " ")


def test_a_dataset_is_spelled_as_everywhere(filled: Cli) -> None:
    filled("edit", "m2", "--dataset", "cifar 10")
    assert filled.json("show", "m2")["dataset"] == "CIFAR-10"


def test_as_a_program(tmp_path: Path) -> None:
    environment = {**os.environ, "SECURITYNET_DATA": str(tmp_path)}
    program = [sys.executable, "-m", "securitynet.cli.catalog"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*program, *arguments], env=environment, capture_output=True, text=True, check=False)

    added = run("add", "--name", "mine")
    assert added.returncode == 0 and (tmp_path / "catalog.sqlite").exists(), "the default is a file in the data folder"
    wrong = run("search", "--purpose", "benchmrk")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "Did you mean benchmark?" in wrong.stderr and "Traceback" not in wrong.stderr
    assert json.loads(run("search", "--json").stdout)["entries"][0]["name"] == "mine"


def test_an_option_that_is_none_is_a_usage_error(cli: Cli) -> None:
    cli("search", "--no-such-option", code=2)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, securitynet.cli.catalog as c; from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(c.app, ['search', '--help']).exit_code == 0\n"
        "heavy = {'sqlalchemy', 'pandas', 'torch', 'alembic', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
