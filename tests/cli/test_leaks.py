"""No path, no name of a user and no name of a machine in anything that can be handed on.

Runs take place under a strange home folder, in a strange working folder, by a strange user on a strange machine. Files
named relatively leave nothing; files named by whole paths leave nothing with ``--redact``.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from securitynet.cli.main import main
from securitynet.results.exports import FORMATS

HOST, USER = "strangehost7", "strangeuser7"
PLACE = "strangeplace7"


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """The working folder, in a strange home."""
    home = tmp_path / PLACE / "home" / USER
    work = home / "strangework7"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    for name, value in {
        "HOME": home,
        "HOSTNAME": HOST,
        "SECURITYNET_CACHE": home / "c",
        "SECURITYNET_DATA": home / "d",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(socket, "getfqdn", lambda name="": f"{HOST}.example.org")
    monkeypatch.setattr(platform, "node", lambda: HOST)
    return work


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns what it printed."""

    def call(*arguments, codes=(0,)):
        monkeypatch.setattr(sys, "argv", ["securitynet", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert code in codes, captured.err
        return captured.out + captured.err

    return call


def find_leaks(content: bytes, *, machine: str) -> list[str]:
    """Which of the names stand in some bytes."""
    names = (PLACE, USER, "strangework7", HOST, machine)
    return [name for name in names if name and name.encode() in content]


def list_leaks(folder: Path, *, machine: str = "") -> dict[str, list[str]]:
    """File -> the names in it; members of archives are unpacked."""
    leaks = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        contents = [path.name.encode(), path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [name.encode() + archive.read(name) for name in archive.namelist()]
        found = sorted({name for content in contents for name in find_leaks(content, machine=machine)})
        if found:
            leaks[str(path.relative_to(folder))] = found
    return leaks


def write_key(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def test_the_scan_finds_what_it_should(tmp_path):
    (tmp_path / "a").write_text(f"/home/{USER}/x")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", f"{HOST} " * 99)
    assert list_leaks(tmp_path) == {"a": [USER], "b.npz": [HOST]}


def test_a_run_leaves_no_name_behind(strange, run):
    """Train, assess, compare, sign and export with relative paths; then with whole paths and ``--redact``."""
    write_key(strange.parent / "key.pem")
    printed = run(
        "train", "simple-cnn", "--dataset", "digits", "--limit", 200, "--epochs", 1, "--out", "model.safetensors"
    )
    small = ("--dataset", "digits", "--limit", 200, "--attacks", "loss", "--detectors", "none")
    printed += run("assess", "arch:simple-cnn", "--weights", "model.safetensors", *small, "--out", "report")
    whole = ("--weights", strange / "model.safetensors", "--out", strange / "redacted", "--against", strange / "report")
    printed += run("assess", "arch:simple-cnn", *small, *whole, "--redact", "--json")
    printed += run("compare", "report", "redacted", "--markdown", "comment.md", "--json")
    printed += run("sign", "report", "--key", strange.parent / "key.pem")
    alone = ("--redact", "--out", "alone.intoto.json")
    printed += run("sign", strange / "redacted", "--key", strange.parent / "key.pem", *alone)
    for name, form in FORMATS.items():
        printed += run("export", "report", "--as", name)
        printed += run("export", "redacted", "--as", name, "--out", f"exported-{form.file}")
    assert list_leaks(strange) == {}
    assert find_leaks(printed.encode(), machine="") == []
    document = json.loads((strange / "redacted" / "result.json").read_text())
    assert document["settings"]["weights"] == "model.safetensors"


STUDY = """
name = "small"
seeds = [0]
[data]
dataset = "digits"
limit = 200
[[train]]
architecture = "simple-cnn"
epochs = [1, 2]
[[attacks]]
name = ["correctness", "loss"]
"""


@pytest.fixture
def run_alone(run_cli):
    """Run the command line in a process of its own, on the machine with its true name; returns what it printed."""

    def call(*arguments):
        finished = run_cli(*arguments)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout + finished.stderr

    return call


@pytest.fixture
def machine():
    """The true name of the machine; empty where it is so short that it stands in any file."""
    name = os.uname().nodename
    return name if len(name) > 4 and name != "localhost" else ""


DIGITS = ("--dataset", "digits", "--limit", 200)


@pytest.mark.slow
def test_all_families_with_signatures_and_exports_leave_no_name_behind(strange, run, run_alone, machine):
    key = strange.parent / "key.pem"
    write_key(key)
    printed = run("train", "simple-cnn", *DIGITS, "--epochs", 2, "--canaries", 20, "--out", "model.safetensors")
    families = "standard,stealing.ml-doctor-surrogate,attribute,evasion.fgsm,inversion.fredrikson"
    quick = "fredrikson.iterations=20,fredrikson.evaluator.recipe.epochs=1,ml-doctor-surrogate.recipe.epochs=1"
    model = ("arch:simple-cnn", "--weights", "model.safetensors")
    printed += run_alone("assess", *model, *DIGITS, "--attacks", families, "--configure", quick, "--out", "report")
    printed += run("sign", "report", "--key", key)
    printed += run("verify", "report", "--sample", 0.1, "--counter-sign", key)
    for name in FORMATS:
        printed += run("export", "report", "--as", name)
    assert find_leaks(printed.encode(), machine=machine) == []
    assert list_leaks(strange, machine=machine) == {}


@pytest.mark.slow
def test_defenses_and_photos_by_whole_paths_leave_no_name_behind(strange, run, machine):
    write_photos(strange / "photos")
    printed = run("train", "simple-cnn", *DIGITS, "--epochs", 2, "--out", "model.safetensors")
    whole = ("arch:simple-cnn", "--weights", strange / "model.safetensors", *DIGITS, "--attacks", "loss", "--redact")
    tried = ("--try-defenses", "--defenses", "output", "--defense-trainings", 0)
    printed += run("assess", *whole, *tried, "--out", strange / "redacted", "--json")
    printed += run("train", "simple-cnn", "--dataset", "folder:photos", "--epochs", 1, "--out", "photos.safetensors")
    photos = ("--dataset", f"folder:{strange / 'photos'}", "--attacks", "loss", "--detectors", "none", "--redact")
    printed += run("assess", "arch:simple-cnn", "--weights", "photos.safetensors", *photos, "--out", "of-photos")
    printed += run("compare", "redacted", "of-photos", "--markdown", "comment.md")
    assert find_leaks(printed.encode(), machine=machine) == []
    assert list_leaks(strange, machine=machine) == {}


@pytest.mark.slow
def test_a_study_and_its_figures_leave_no_name_behind(strange, run, run_alone, machine):
    Path("study.toml").write_text(STUDY)
    printed = run_alone("study", "run", "study.toml", "--out", "study", "--workers", 1)
    printed += run("report", "study")
    printed += run("report", "study", "--out", "study.pdf")
    for kind in ("csv", "parquet", "jsonl"):
        printed += run("study", "export", "study", f"table.{kind}")
    printed += run("figures", "draw", "all", "--from", "study", "--out", "figures")
    for kind in ("pdf", "png"):
        printed += run("figures", "draw", "roc-bands", "--from", "study", "--out", f"curves.{kind}")
    assert find_leaks(printed.encode(), machine=machine) == []
    assert list_leaks(strange, machine=machine) == {}


def write_photos(folder: Path) -> None:
    """Two classes of noise in two parts."""
    from PIL import Image

    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / part / label).mkdir(parents=True)
            for number in range(12):
                pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{number}.png")
