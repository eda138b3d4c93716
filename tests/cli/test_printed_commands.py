"""Every command that a page, a report, a hint or a help text prints exists, with the options that it shows."""

from __future__ import annotations

import ast
import functools
import hashlib
import html
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from fastapi.testclient import TestClient

import securitynet
import securitynet.catalog
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.result import _settings
from securitynet.cli.main import app, main
from securitynet.models.architectures.factory import build
from securitynet.web.app import create_app

SOURCE = Path(securitynet.__file__).parent
_IN_TEXT = re.compile(r"`+(securitynet [^`]+)`+|(?:Example|Run one|The same search): (securitynet [^\n]+)")
_IN_PAGE = re.compile(r"<code>(securitynet [^<]+)</code>", re.DOTALL)
_SHOWN = re.compile(r"<(code|pre)\b[^>]*>(.*?)</\1>", re.DOTALL)


def _texts(tree: ast.Module) -> Iterator[str]:
    """All texts of a module; what an f-string inserts is written VALUE."""
    nodes = list(ast.walk(tree))
    inserting = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in inserting for part in ast.walk(node)} - set(map(id, inserting))
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def commands_of(report: Path) -> list[str]:
    """The commands that a report shows, as they are copied."""
    blocks = (text for _, text in _SHOWN.findall(report.read_text(encoding="utf-8")))
    texts = [html.unescape(re.sub(r"<[^>]+>", "", block)) for block in blocks]
    return [line for text in texts for line in text.splitlines() if line.startswith("securitynet ")]


def printed() -> set[str]:
    """All commands in the package's texts and templates."""
    commands: set[str] = set()
    for path in sorted(SOURCE.rglob("*.py")):
        for text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            commands |= {first or second for first, second in _IN_TEXT.findall(text)}
    for path in sorted(SOURCE.rglob("*.html")):
        text = re.sub(r"\{\{.*?\}\}", "VALUE", path.read_text(encoding="utf-8"))
        commands |= {line for block in _IN_PAGE.findall(text) for line in html.unescape(block).splitlines()}
    return {" ".join(command.split()) for command in commands}


def listed() -> set[str]:
    """All commands that the comments of the ready study files list."""
    studies = sorted((SOURCE.parents[1] / "studies").glob("*.toml"))
    lines = [line for path in studies for line in path.read_text(encoding="utf-8").splitlines()]
    return {line.lstrip("# ").strip() for line in lines if re.match(r"#\s+securitynet ", line)}


@functools.cache
def whole_program() -> Any:
    """The command line with all its commands, which takes a while to put together."""
    return typer.main.get_command(app)


def check(command: str) -> str | None:
    """What is wrong with a printed command; None if nothing is."""
    group = whole_program()
    words = shlex.split(command)[1:]
    # Typer may bring a Click of its own, so groups are told by what they can do.
    while hasattr(group, "get_command") and words and not words[0].startswith("-"):
        found = group.get_command(group.context_class(group), words[0])
        if found is None:
            return f"there is no command {words[0]}"
        group, words = found, words[1:]
    options = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if re.match(r"--[a-z]|-[a-z]$", word) and word.partition("=")[0] not in options]
    return f"there is no option {', '.join(unknown)}" if unknown else None


def test_every_printed_command_can_be_typed() -> None:
    commands = printed() | listed()
    assert len(commands) > 30 and any("catalog scan" in command for command in listed())
    # CODE stands for any code, and COMMAND for any command.
    generic = {command for command in commands if re.search(r"--CODE|securitynet (COMMAND|--help)", command)}
    wrong = {command: problem for command in commands - generic if (problem := check(command))}
    assert not wrong


def test_a_wrong_command_is_noticed() -> None:
    assert check("securitynet asses catalog:x") == "there is no command asses"
    assert check("securitynet assess x --datasett y") == "there is no option --datasett"
    assert check("securitynet catalog search x --dataset CIFAR-10") is None


@pytest.fixture
def page(tmp_path: Path) -> tuple[str, str]:
    """A model's page for an entry in a database of its own: its command and its Python code."""
    torch.manual_seed(0)
    torch.save(build("simple-cnn", 10, 1, 8).state_dict(), tmp_path / "net.pth")
    url = f"sqlite:///{tmp_path}/a catalog.sqlite"
    with securitynet.catalog.open(url) as catalog:
        codes = {"name": "net", "reference": "arch:simple-cnn", "dataset": "digits", "classes": 10}
        checksum = f"sha256:{hashlib.sha256((tmp_path / 'net.pth').read_bytes()).hexdigest()}"
        entry = catalog.add({**codes, "weights_file": str(tmp_path / "net.pth"), "checksum": checksum})
    with TestClient(create_app(url), base_url="http://127.0.0.1:8421") as client:
        text = client.get(f"/models/{entry.id}").text
    python, command = (
        html.unescape(code) for code in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", text, re.DOTALL)
    )
    return command, python


def test_the_command_of_a_page_runs_as_it_stands(page, tmp_path, monkeypatch, capsys) -> None:
    command, python = page
    monkeypatch.chdir(tmp_path)
    shorter = ["--limit", "60", "--attacks", "correctness", "--detectors", "none", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*shlex.split(command), *shorter])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (None, 0), capsys.readouterr().err
    again = commands_of(tmp_path / "report" / "report.html")
    assert again and all(f"--db '{tmp_path}/a catalog.sqlite'" in line for line in again if "catalog:" in line)
    names: dict[str, object] = {}
    exec(compile(python, "page", "exec"), names)
    assert names["target"].num_classes == 10


def test_the_commands_of_a_report_can_be_typed(tmp_path) -> None:
    """Those that this report shows, filled with its own values."""
    torch.manual_seed(0)
    outcome = securitynet.assess(
        build("simple-cnn", 10, 1, 8),
        "digits",
        limit=60,
        attacks=["correctness"],
        detectors=[],
        out=tmp_path / "out",
    )
    for command in commands_of(Path(outcome.report)):
        assert check(command) is None, command


def test_the_address_of_a_database_server_is_in_no_result() -> None:
    server = AssessConfig(model="catalog:x", dataset="digits", db="postgresql://me:secret@host/catalog")
    assert "db" not in _settings(server)
    assert _settings(server.model_copy(update={"db": "sqlite:///my.sqlite"}))["db"] == "my.sqlite"


def test_training_ends_with_the_command_that_assesses_the_model(run_cli, tmp_path):
    out = tmp_path / "my model.safetensors"
    trained = run_cli("train", "simple-cnn", "--dataset", "digits", "--limit", 200, "--epochs", 1, "--out", out)
    command = next(line for line in trained.stdout.splitlines() if line.startswith("Assess:")).partition(":")[2]
    words = shlex.split(command)
    assert words[:3] == ["securitynet", "assess", "arch:simple-cnn"]
    assessed = run_cli(*words[1:], "--attacks", "membership.loss", "--out", tmp_path / "out")
    assert assessed.returncode == 0, assessed.stderr
    assert (tmp_path / "out" / "result.json").exists()
