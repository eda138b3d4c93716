"""Sides whose work is a process of its own: what it took is read off when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

LOOK = 0.002
"""Seconds between two looks at the process's memory."""


def timed(
    command: list[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> dict[str, float]:
    """Run a command to its end.

    Returns:
        ``seconds`` by the clock, ``processor`` seconds, ``peak`` bytes of the process itself.

    Raises:
        RuntimeError: With its last words, if it fails.
    """
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, cwd=cwd, stdout=subprocess.DEVNULL, stderr=errors
        )
        peak = 0
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, _peak(process.pid))
            time.sleep(LOOK)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read()
            print(said[-3000:], file=sys.stderr)
            last = said.strip().splitlines()[-1:] or ["no word"]
            raise RuntimeError(f"{Path(command[0]).name} ended with {process.returncode}: {last[0]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds,
        "processor": usage.ru_utime + usage.ru_stime,
        "peak": peak or usage.ru_maxrss * unit,
    }


def _peak(process: int) -> int:
    """The most bytes that it has held since it became the program it is; 0 where the system does not tell.

    What `wait4` gives counts from the fork on, and so the parent's memory.
    """
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
