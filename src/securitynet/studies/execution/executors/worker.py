"""The worker process of `LocalExecutor`: takes tasks from a socket, one at a time, until the runner is gone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from securitynet.studies.execution.task_records import WorkerConfig, WorkerMessage, WorkerTask

_REPORT_EVERY = 0.2
"""Seconds between two messages about progress."""


def main() -> None:
    """Work until the socket is closed. Arguments: descriptor of the socket, process id of the runner."""
    faulthandler.enable()  # what a crash of the interpreter leaves in the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    die_with(int(sys.argv[2]))
    lines = link.makefile("rb")
    config = WorkerConfig.model_validate_json(lines.readline())
    with contextlib.suppress(OSError):  # out of memory, the system should end a worker rather than the runner
        Path("/proc/self/oom_score_adj").write_text("500")
    if config.placement.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, config.placement.cores)
    import torch

    from securitynet.memory import keep_freed_memory
    from securitynet.studies.execution.worker_tasks import BEGAN, TaskRunner

    keep_freed_memory()
    torch.set_num_threads(config.placement.threads)
    runner = TaskRunner(config)
    gc.freeze()  # what was imported stays: looking through it again after each target would take 0.15 s
    _send(link, WorkerMessage())
    last_report = 0.0

    def report_progress(what: str, done: int, total: int) -> None:
        nonlocal last_report
        if what == BEGAN or time.monotonic() - last_report >= _REPORT_EVERY:
            last_report = time.monotonic()
            _send(link, WorkerMessage(what=what, done=int(done), total=int(total)))

    for line in lines:
        outcome = runner.run(WorkerTask.model_validate_json(line), report_progress)
        _send(link, WorkerMessage(outcome=outcome))


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


def _send(link: socket.socket, message: WorkerMessage) -> None:
    try:
        link.sendall(message.model_dump_json(exclude_defaults=True).encode() + b"\n")
    except OSError:
        os._exit(1)  # the runner is gone


if __name__ == "__main__":
    main()
