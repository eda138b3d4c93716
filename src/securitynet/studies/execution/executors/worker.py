"""The worker process of `LocalExecutor`: runs tasks from a socket, one at a time, until the runner ends."""

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

from securitynet.idle_threads import limit_idle_loops
from securitynet.studies.execution.task_records import WorkerConfig, WorkerMessage, WorkerTask

_REPORT_EVERY = 0.2
"""Smallest interval between progress messages, in seconds."""


def main() -> None:
    """Run tasks until the socket is closed. Command-line arguments: socket descriptor, process id of the runner."""
    faulthandler.enable()  # writes a traceback to the log if the interpreter crashes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    end_with(int(sys.argv[2]))
    lines = link.makefile("rb")
    config = WorkerConfig.model_validate_json(lines.readline())
    with contextlib.suppress(OSError):  # if memory runs out, the system should kill a worker rather than the runner
        Path("/proc/self/oom_score_adj").write_text("500")
    if config.placement.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, config.placement.cores)
    limit_idle_loops()
    import torch

    from securitynet.memory import keep_freed_memory
    from securitynet.studies.execution.worker_tasks import BEGAN, TaskRunner

    keep_freed_memory()
    torch.set_num_threads(config.placement.threads)
    runner = TaskRunner(config)
    gc.freeze()  # exempts imported modules from garbage collection, which would take 0.15 s after each target
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


def end_with(parent: int) -> None:
    """Make this process end when its parent does, for whatever reason.

    Otherwise, a worker of a killed runner would finish its trial alongside the workers of the next runner.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, on Linux
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:  # for systems without such a call
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
