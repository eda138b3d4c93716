"""The worker process of `LocalExecutor`: takes jobs from a socket, one at a time, until the runner is gone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

_TOLD_EVERY = 0.2


def main() -> None:
    """Work until the socket is closed."""
    faulthandler.enable()  # what a crash of the interpreter leaves in the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    lines = link.makefile("rb")
    hello = json.loads(lines.readline())
    die_with(hello["parent"])
    with contextlib.suppress(OSError):  # out of memory, the system should end a worker rather than the runner
        Path("/proc/self/oom_score_adj").write_text("500")
    if hello["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, hello["cores"])
    import torch

    from securitynet.results.root import open_root
    from securitynet.studies.execution.worker_tasks import BEGAN, Workbench

    torch.set_num_threads(hello["threads"])
    bench = Workbench(
        open_root(hello["root"]),
        Path(hello["cache"]),
        hello["device"],
        hello["level"],
        tuple(hello["fprs"]),
        hello["term"],
    )
    gc.freeze()  # what was imported stays: looking through it again after each target would take 0.15 s
    _send(link, {"ready": True})
    told = 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal told
        if what == BEGAN or time.monotonic() - told >= _TOLD_EVERY:
            told = time.monotonic()
            _send(link, {"what": what, "done": int(done), "total": int(total)})

    for line in lines:
        _send(link, {"outcome": bench.do(json.loads(line), progress)})


def die_with(parent: int) -> None:
    """See to it that this process ends when its parent does, however that ends.

    Otherwise a worker whose runner was killed would finish its trial beside the next runner's worker.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, on Linux
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:  # where there is no such call
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    try:
        link.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        os._exit(1)  # the runner is gone


if __name__ == "__main__":
    main()
