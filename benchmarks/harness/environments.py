"""One virtual environment a peer, made from the package index the first time it is needed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from harness.row import PROJECT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BENCHMARKS = Path(__file__).resolve().parents[1]
CONSTRAINTS = BENCHMARKS.parent / "constraints.txt"
SHARED = ("torch", "torchvision")
"""Packages whose versions all environments share, so that both sides compute with the same kernels."""


class EnvironmentFailed(Exception):
    """An environment could not be made."""


@dataclass(frozen=True)
class Environment:
    """Where a side runs.

    Attributes:
        name: ``project``, or the peer's.
        python: Its interpreter.
        version: ``NAME VERSION`` of what is measured there.
    """

    name: str
    python: Path
    version: str


def declared() -> dict[str, dict]:
    """What ``environments.toml`` says."""
    return tomllib.loads((BENCHMARKS / "environments.toml").read_text(encoding="utf-8"))


def environment(name: str, folder: Path) -> Environment:
    """An environment, made if it is missing or if what it should hold has changed.

    Args:
        name: ``project`` for the interpreter that runs this, or a name in ``environments.toml``.
        folder: Where environments lie.

    Raises:
        EnvironmentFailed: With pip's last words.
    """
    if name == PROJECT:
        return Environment(name, Path(sys.executable), f"securitynet {_version(Path(sys.executable), 'securitynet')}")
    try:
        wanted = declared()[name]
    except KeyError:
        raise EnvironmentFailed(f"{name} is not in environments.toml") from None
    pins = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line.split("==")[0] in SHARED]
    base = folder / "torch"
    _made(base, {"packages": [*SHARED, "numpy"]}, pins, None)
    python = _made(folder / name, wanted, pins, base)
    return Environment(name, python, f"{wanted['version']} {_version(python, wanted['version'])}")


def _made(place: Path, wanted: dict, pins: list[str], base: Path | None) -> Path:
    """The interpreter of an environment that holds the packages, and finds those of ``base`` behind its own."""
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = hashlib.sha256(json.dumps([wanted, pins, sys.version, str(base)], sort_keys=True).encode()).hexdigest()
    complete = place / ".complete"
    if complete.exists() and complete.read_text() == stamp:
        return python
    shutil.rmtree(place, ignore_errors=True)
    print(f"making the environment of {place.name} ...", file=sys.stderr, flush=True)
    venv.create(place, with_pip=True)
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
    if base is not None:
        # Torch is a gigabyte: one copy serves all. A peer that pins another version of something gets its own, which
        # comes first.
        (_packages(python) / "torch-of-all.pth").write_text(f"{_packages(base / python.relative_to(place))}\n")
    _pip(python, ["-c", str(constraints), *wanted["packages"]])
    if wanted.get("no_deps"):
        _pip(python, ["--no-deps", *wanted["no_deps"]])
    complete.write_text(stamp)
    return python


def _packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip())


def _pip(python: Path, arguments: list[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise EnvironmentFailed(f"pip install {' '.join(arguments)} failed:\n{finished.stderr[-1500:]}")


def _version(python: Path, package: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
