"""A process in one environment that prepares and runs one side, on commands that come as JSON lines.

It is started as a script by the interpreter of that environment, and needs no more than numpy. What sides print goes
to standard error, so that the answers on standard output stay readable.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from harness.row import Case, Row, Run


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = serve(command, runs)
        except BaseException as error:  # whatever happens in a peer's code is told, and does not end the harness
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()[-3000:]}
        send(answers, answer)


def serve(command: dict[str, Any], runs: dict[str, Run]) -> dict[str, Any]:
    """Carry out one command."""
    if command["do"] == "run":
        return run(runs["side"], command["device"], command.get("out"))
    case = case_of(command)
    row: Row = importlib.import_module(f"rows.{command['row']}").ROW
    limit_threads(case.threads)
    if command["do"] == "inputs":
        row.make_inputs(case)
    else:
        runs["side"] = next(side for side in row.sides if side.name == command["side"]).prepare(case)
    return {"done": True}


def case_of(command: dict[str, Any]) -> Case:
    """The case that a command is about."""
    data = command["data"]
    return Case(
        Path(command["folder"]),
        command["size"],
        command["device"],
        command["threads"],
        None if data is None else Path(data),
    )


def run(function: Run, device: str, out: str | None) -> dict[str, Any]:
    """Run a side once, and say what it took; what it returned is written to ``out``."""
    reset_peak()
    synchronise(device)
    processor, started = time.process_time(), time.perf_counter()
    found = function()
    synchronise(device)
    seconds = time.perf_counter() - started
    answer = {
        # A side whose work is a process of its own says itself what that took.
        "seconds": float(found.get("seconds", seconds)),
        "processor": float(found.get("processor", time.process_time() - processor)),
        "peak": int(found.get("peak", peak(device))),
    }
    if out is not None:
        np.savez(out, **{name: np.asarray(value) for name, value in found.items()})
    return answer


def limit_threads(threads: int) -> None:
    """Torch's threads, where torch is there; other libraries read the variables that the harness set."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def synchronise(device: str) -> None:
    """Wait for what was sent to the GPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def reset_peak() -> None:
    """Start the kernel's count of the most memory anew, where it can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def peak(device: str) -> int:
    """Bytes that the process held at most since `reset_peak`: on the GPU if it runs there, else resident."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def send(stream: TextIO, answer: dict[str, Any]) -> None:
    """One line."""
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
