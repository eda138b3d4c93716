"""Folders that may not be written: a clear message before long work, and nothing in them is touched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import run_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="root's capabilities are dropped")

NOBODY = 65534
DATA = ("--dataset", "digits", "--device", "cpu")
COMMANDS = {
    "train": ("train", "simple-cnn", *DATA, "--epochs", "5000", "--out", "locked/model.safetensors"),
    "assess": ("assess", "arch:simple-cnn", "--weights", "absent.pth", *DATA, "--out", "locked"),
    "study": ("study", "run", "study.toml", "--out", "locked/out"),
    "import": ("catalog", "import", "table.jsonl", "--db", "locked/catalog.sqlite"),
    "export": ("catalog", "export", "locked/out.csv", "--db", "catalog.sqlite"),
}
STUDY = """
name = "a"
[data]
dataset = "digits"
[[models]]
reference = "arch:simple-cnn"
[[attacks]]
name = "correctness"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "study.toml").write_text(STUDY)
    (folder / "table.jsonl").write_text('{"key": "test:a", "source": "test", "name": "a"}\n')
    (folder / "locked").mkdir()
    (folder / "locked" / "there.txt").write_text("of someone else")
    yield folder
    (folder / "locked").chmod(0o755)  # so that pytest can remove it


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("owner", [pytest.param("own", marks=pytest.mark.slow), "foreign"])
def test_a_folder_that_may_not_be_written(place: Path, tmp_path: Path, name: str, owner: str) -> None:
    root = os.getuid() == 0
    if owner == "foreign" and not root:
        pytest.skip("only root has folders of another user to offer")
    if owner == "own":
        (place / "locked").chmod(0o555)
    else:
        os.chown(place / "locked", NOBODY, NOBODY)
    done = run_command(list(COMMANDS[name]), tmp_path, timeout=60, plain_user=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert "writ" in done.stderr or "ermission" in done.stderr or "open" in done.stderr, done.stderr
    assert [path.name for path in (place / "locked").iterdir()] == ["there.txt"]
