"""Sides whose work is a process of its own: what it took is read off when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path


def timed(
    command: list[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> dict[str, float]:
    """Run a command to its end.

    Returns:
        ``seconds`` by the clock, ``processor`` seconds, ``peak`` bytes of the process itself.

    Raises:
        RuntimeError: With its last words, if it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print(errors[-3000:], file=sys.stderr)
        last = errors.strip().splitlines()[-1:] or ["no word"]
        raise RuntimeError(f"{Path(command[0]).name} ended with {process.returncode}: {last[0]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "processor": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * unit}
