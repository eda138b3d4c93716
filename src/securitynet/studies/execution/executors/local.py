"""`LocalExecutor`: worker processes on this machine; a crash of one does not affect the others.

A worker is a new interpreter, not a fork, so it shares no threads and no locks with the runner. They exchange lines of
JSON over a pair of sockets, so that the output of a model's code cannot interfere. A worker dies with its runner.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from securitynet.studies.definition.file import RunSettings
from securitynet.studies.execution.executors.base import (
    Event,
    Executor,
    ExecutorConfig,
    TaskCompletion,
    TaskProgress,
    WorkerDeath,
)
from securitynet.studies.execution.task_records import WorkerMessage, WorkerPlacement, WorkerTask

_TAIL = 4000
_MEMORY_EVERY = 0.25
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    link: socket.socket
    log: Path
    buffer: bytearray = field(default_factory=bytearray)
    ready: bool = False


class LocalExecutor(Executor):
    """Runs tasks in worker processes; see the module.

    Args:
        config: Number, configuration and limits of the workers.
    """

    def __init__(self, config: ExecutorConfig) -> None:
        self.config = config
        self.placements = plan_placements(config.settings)
        self.slots = len(self.placements)
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._last_memory_check = 0.0

    @override
    def submit(self, slot: int, task: WorkerTask) -> None:
        worker = self._workers.get(slot) or self._start(slot)
        with contextlib.suppress(OSError):  # the worker has died, which `wait` reports
            worker.link.sendall(task.model_dump_json().encode() + b"\n")

    @override
    def wait(self, seconds: float) -> list[Event]:
        limit = self.config.settings.memory_limit
        events: list[Event] = []
        for key, _ in self._selector.select(min(seconds, _MEMORY_EVERY) if limit else seconds):
            events += self._receive(int(key.data))
        if limit and time.monotonic() - self._last_memory_check > _MEMORY_EVERY:
            self._last_memory_check = time.monotonic()
            events += self._end_over_memory(limit)
        return events

    @override
    def kill(self, slot: int) -> None:
        worker = self._workers.pop(slot, None)
        if worker is not None:
            self._selector.unregister(worker.link)
            worker.link.close()
            _kill(worker.process)

    @override
    def close(self) -> None:
        for slot in list(self._workers):
            self.kill(slot)
        self._selector.close()

    def list_processes(self) -> list[int]:
        """Return the process ids of the workers."""
        return [worker.process.pid for worker in self._workers.values()]

    def _start(self, slot: int) -> _Worker:
        ours, theirs = socket.socketpair()
        folder = self.config.state / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"worker-{slot}.log"
        placement = self.placements[slot]
        inherited = [theirs.fileno(), *([self.config.lock] if self.config.lock is not None else [])]
        # `-m` would put the current folder first on the path, and any file in it could shadow a module.
        environment = {**os.environ, "PYTHONSAFEPATH": "1", **placement.environment}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "securitynet.studies.execution.executors.worker",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=inherited,
                start_new_session=True,  # Ctrl-C in a terminal is for the runner
            )
        theirs.close()
        worker = _Worker(process, ours, log)
        ours.setblocking(True)
        self._workers[slot] = worker
        self._selector.register(ours, selectors.EVENT_READ, slot)
        config = self.config.worker.model_copy(update={"placement": placement})
        with contextlib.suppress(OSError):
            ours.sendall(config.model_dump_json().encode() + b"\n")
        return worker

    def _receive(self, slot: int) -> list[Event]:
        worker = self._workers[slot]
        try:
            received = worker.link.recv(1 << 20)
        except OSError:
            received = b""
        if not received:
            return [self._bury(slot)]
        worker.buffer += received
        *lines, rest = bytes(worker.buffer).split(b"\n")
        worker.buffer = bytearray(rest)
        events: list[Event] = []
        for line in lines:
            message = WorkerMessage.model_validate_json(line)
            if message.outcome is not None:
                events.append(TaskCompletion(slot, message.outcome))
            elif message.what is not None:
                events.append(TaskProgress(slot, message.what, message.done, message.total))
            else:
                worker.ready = True
        return events

    def _bury(self, slot: int) -> WorkerDeath:
        worker = self._workers[slot]
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=5)
        code = worker.process.poll()
        self.kill(slot)
        return WorkerDeath(slot, _describe_exit(code), _read_tail(worker.log), began=worker.ready)

    def _end_over_memory(self, limit: float) -> list[Event]:
        """Kill workers that exceed the memory limit."""
        events: list[Event] = []
        for slot, worker in list(self._workers.items()):
            used = _read_memory(worker.process.pid)
            if used > limit * 2**30:
                self.kill(slot)
                why = f"it used {used / 2**30:.2f} GiB of memory, above the limit of {limit:g} GiB"
                events.append(WorkerDeath(slot, why, _read_tail(worker.log), final=True))
        return events


def plan_placements(settings: RunSettings) -> list[WorkerPlacement]:
    """Plan the slots of this machine: how many, and the cores and the GPU of each."""
    cores = list_available_cores()
    gpus = _gpus(settings)
    count = settings.workers or (len(gpus) or max(1, len(cores) // 2))
    threads = settings.threads or max(1, len(cores) // count)
    placements = []
    for slot in range(count):
        own: tuple[int, ...] = ()
        if settings.pin:
            own = tuple(cores[(slot * threads + offset) % len(cores)] for offset in range(threads))
        environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        device = settings.device
        if gpus and device in ("auto", "cuda"):
            environment["CUDA_VISIBLE_DEVICES"] = str(gpus[slot % len(gpus)])
            device = "cuda"
        placements.append(
            WorkerPlacement(device=device, threads=threads, cores=tuple(dict.fromkeys(own)), environment=environment)
        )
    return placements


def list_available_cores() -> list[int]:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus(settings: RunSettings) -> tuple[int, ...]:
    if settings.device not in ("auto", "cuda"):
        return ()
    if settings.gpus:
        return settings.gpus
    import torch

    return tuple(range(torch.cuda.device_count()))


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # including its child processes
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "its process closed the connection"
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system may have been out of memory" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"


def _read_tail(path: Path) -> str:
    """Return the last lines that a worker printed, or the report of an interpreter crash."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
    crash = text.rfind("Fatal Python error")
    return text[crash : crash + _TAIL] if crash >= 0 else text[-_TAIL:]


def _read_memory(pid: int) -> int:
    """Return the resident bytes of a process; 0 if the system does not report them."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def read_memory_peak(pid: int) -> int:
    """Return the peak resident bytes of a process; 0 if the system does not report them."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
