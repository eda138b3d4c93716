"""The search for circles of files: each kind of import counts, and what is no circle is none."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "find_circles.py"


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)


def write_package(folder: Path, **files: str) -> Path:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    "back",
    [
        "import package.first",
        "from package.first import name",
        "from package import first",
        "from . import first",
        "from .first import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package.first import name",
        "def use():\n    from package.first import name",
        "import importlib\nimportlib.import_module('package.first')",
        "from importlib import import_module\nimport_module('.first', __package__)",
    ],
)
def test_every_kind_of_import_closes_a_circle(tmp_path: Path, back: str) -> None:
    folder = write_package(
        tmp_path, first="from package import second", second="import package.third", third=f"import os\n{back}"
    )
    result = run(folder)
    line = 2 + back.count("\n")
    assert result.returncode == 1
    assert "(3 files are entangled)" in result.stdout
    assert "package.first:1 -> package.second" in result.stdout
    assert "package.second:1 -> package.third" in result.stdout
    assert f"package.third:{line} -> package.first" in result.stdout


def test_two_ways_to_one_module_are_no_circle(tmp_path: Path) -> None:
    folder = write_package(
        tmp_path,
        top="from package import left, right",
        left="from package import bottom",
        right="from package import bottom\nname = 'package.top'",
        bottom="import package",
    )
    result = run(folder)
    assert result.returncode == 0, result.stdout
    assert "No circle among 5 files" in result.stdout


def test_separate_circles_are_each_shown_by_their_shortest(tmp_path: Path) -> None:
    folder = write_package(
        tmp_path,
        a="import package.b",
        b="import package.a\nimport package.c",
        c="import package.a",
        d="import package.e",
        e="import package.d",
    )
    result = run(folder)
    assert result.returncode == 1
    assert result.stdout.count("Circle (") == 2
    assert "package.c" not in result.stdout and "package.e:1 -> package.d" in result.stdout


def test_a_folder_without_python_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 2


def test_long_chains_need_no_deep_stack() -> None:
    specification = importlib.util.spec_from_file_location("find_circles", SCRIPT)
    assert specification is not None and specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    names = [f"m{number:05d}" for number in range(5000)]
    chain = {name: {following: 1} for name, following in itertools.pairwise(names)} | {names[-1]: {}}
    assert script.group_entangled(chain) == []
    chain[names[-1]] = {names[0]: 1}
    assert script.group_entangled(chain) == [names]
