"""A folder with a small study in it, and a plug-in with an attack that does as it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas

from securitynet.assessments.known_methods import find_default_settings
from securitynet.files import parse_toml
from securitynet.models.sources.references import list_code
from securitynet.results.export import CHANGING, to_frame
from securitynet.studies.execution.inspect import open_index
from securitynet.studies.execution.run import StudyRunConfig, find_results, run_study
from securitynet.studies.execution.status import Status

PLUGIN = Path(__file__).parent / "plugin"

FACTORY = """
import torch

def make():
    torch.manual_seed({seed})
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""

HEAD = """
name = "small"
seeds = [0]

[data]
dataset = "digits"
limit = 60
normalize = "none"
head = "logits"
"""


def run_together(**settings) -> str:
    """The attack that tells in ``together.log`` and ``alone.log`` how it ran: a line a task, targets joined by +."""
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    return f"""
[[attacks]]
name = "membership.together"
threat_models = ["black-box/none"]
[attacks.settings]
{lines}"""


class Box:
    """A folder with a study in it, and a way to run commands there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "NOOP_FOLDER": str(self.marks),
            "SECURITYNET_CACHE": str(folder / "cache"),
            "SECURITYNET_DATA": str(folder / "data"),
            "OMP_NUM_THREADS": "1",
        }
        for name in ("a", "b"):
            (folder / f"{name}.py").write_text(FACTORY.format(seed=ord(name)))

    def write(self, attacks: str, *, models: str = '[[models]]\nreference = ["python:a.py:make", "python:b.py:make"]'):
        path = self.folder / "study.toml"
        path.write_text(f"{HEAD}\n{models}\n{attacks}\n")
        return path

    def write_networks(self, attacks: str, names: str = "abcd"):
        """A study of as many networks as there are letters in ``names``."""
        for name in names:
            (self.folder / f"{name}.py").write_text(FACTORY.format(seed=ord(name)))
        references = ", ".join(f'"python:{name}.py:make"' for name in names)
        return self.write(attacks, models=f"[[models]]\nreference = [{references}]")

    def command(self, *arguments: object) -> list[str]:
        trusted = ("--trust", ",".join(self.code())) if arguments[0] in ("run", "plan") else ()
        return [sys.executable, "-m", "securitynet.cli.main", "study", *map(str, arguments), *trusted]

    def code(self) -> tuple[str, ...]:
        """The references to Python code in the study, all of which this test has written."""
        study = self.folder / "study.toml"
        return tuple(list_code(parse_toml(study.read_text()))) if study.exists() else ()

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def call(self, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, text=True, capture_output=True, timeout=timeout
        )

    def run(self, **options: object) -> Status:
        """Run the study from this process; its workers are processes all the same. Notes are kept in ``notes``."""
        options = {"workers": 1, "threads": 1, "trust": self.code(), **options}
        config = StudyRunConfig(study=self.folder / "study.toml", out=str(self.out), **options)
        self.notes: list[str] = []
        return run_study(config, note=self.notes.append)[0]

    def table(self) -> pandas.DataFrame:
        """The exported table without what another run may fill otherwise."""
        with open_index(find_results(str(self.out)), print) as index:
            frame = to_frame(index, find_default_settings)
        return frame.drop(columns=list(CHANGING))

    def log(self, what: str) -> list[str]:
        path = self.marks / f"{what}.log"
        return path.read_text().split() if path.exists() else []
