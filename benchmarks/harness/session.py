"""The harness's end of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.environments import BENCHMARKS, Environment
from harness.row import Case


class SideFailed(Exception):
    """A side raised an error, or its process died."""


class Session:
    """A worker process in an environment, for one row.

    Args:
        environment: Where it runs.
        row: Name of the row's file.
        case: What it is about.
    """

    def __init__(self, environment: Environment, row: str, case: Case) -> None:
        self.row, self.case = row, case
        threads = str(case.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when the session ends)
        self.process = subprocess.Popen(
            [str(environment.python), str(BENCHMARKS / "harness" / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=case.folder,
            env={**os.environ, **dict.fromkeys(names, threads), "PYTHONWARNINGS": "ignore"},
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def inputs(self) -> None:
        """Write the files that all sides read."""
        self._ask("inputs")

    def prepare(self, side: str) -> None:
        """Make ready what is not timed."""
        self._ask("prepare", side=side)

    def run(self, out: Path | None = None) -> dict[str, Any]:
        """Run the side once: ``seconds``, ``processor`` (seconds of all threads), ``peak`` (bytes)."""
        return self._ask("run", out=None if out is None else str(out))

    def _ask(self, what: str, **further: Any) -> dict[str, Any]:
        case = self.case
        command = {
            "do": what,
            "row": self.row,
            "folder": str(case.folder),
            "size": case.size,
            "device": case.device,
            "threads": case.threads,
            "data": None if case.data is None else str(case.data),
            **further,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.errors.seek(0)
            print(self.errors.read()[-3000:], file=sys.stderr, flush=True)
            raise SideFailed(f"its process ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            print(answer["traceback"], file=sys.stderr, flush=True)
            raise SideFailed(answer["error"])
        return answer
