"""`LocalExecutor`: worker processes of this machine. Whatever a job does to its process, the others go on.

A worker is a fresh interpreter, not a fork: it shares no thread and no lock with the runner. Both talk in lines of JSON
over a pair of sockets, so that what a model's code prints can't get in between. A worker dies with its runner.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securitynet.studies.definition.file import RunSettings
from securitynet.studies.execution.executors.base import Bench, Died, Event, Executor, Finished, Progressed
from securitynet.studies.execution.worker_tasks import Job

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
    """Worker processes; see the module.

    Args:
        bench: What they are told.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.places = places(bench.settings)
        self.slots = len(self.places)
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._looked = 0.0

    def submit(self, slot: int, job: Job) -> None:
        """See `Executor.submit`."""
        worker = self._workers.get(slot) or self._start(slot)
        with contextlib.suppress(OSError):  # it has died; `wait` will say so
            worker.link.sendall(_line(job))

    def wait(self, seconds: float) -> list[Event]:
        """See `Executor.wait`."""
        limit = self.bench.settings.memory_limit
        events: list[Event] = []
        for key, _ in self._selector.select(min(seconds, _MEMORY_EVERY) if limit else seconds):
            events += self._receive(int(key.data))
        if limit and time.monotonic() - self._looked > _MEMORY_EVERY:
            self._looked = time.monotonic()
            events += self._over(limit)
        return events

    def kill(self, slot: int) -> None:
        """See `Executor.kill`."""
        worker = self._workers.pop(slot, None)
        if worker is not None:
            self._selector.unregister(worker.link)
            worker.link.close()
            _kill(worker.process)

    def close(self) -> None:
        """See `Executor.close`."""
        for slot in list(self._workers):
            self.kill(slot)
        self._selector.close()

    def processes(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers.values()]

    def _start(self, slot: int) -> _Worker:
        ours, theirs = socket.socketpair()
        folder = self.bench.state / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"worker-{slot}.log"
        inherited = [theirs.fileno(), *([self.bench.inherit] if self.bench.inherit is not None else [])]
        # `-m` would put the current folder first on the path, where any file could be taken for a module.
        environment = {**os.environ, "PYTHONSAFEPATH": "1", **self.places[slot].environment}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "securitynet.studies.execution.executors.worker", str(theirs.fileno())],
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
        hello = {
            "root": self.bench.root,
            "cache": str(self.bench.cache),
            "device": self.places[slot].device,
            "level": self.bench.level,
            "fprs": list(self.bench.fprs),
            "threads": self.places[slot].threads,
            "cores": self.places[slot].cores,
            "parent": os.getpid(),
            "term": self.bench.term,
        }
        with contextlib.suppress(OSError):
            ours.sendall(_line(hello))
        return worker

    def _receive(self, slot: int) -> list[Event]:
        worker = self._workers[slot]
        try:
            received = worker.link.recv(1 << 20)
        except OSError:
            received = b""
        if not received:
            return [self._gone(slot)]
        worker.buffer += received
        *lines, rest = bytes(worker.buffer).split(b"\n")
        worker.buffer = bytearray(rest)
        events: list[Event] = []
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if "outcome" in message:
                events.append(Finished(slot, message["outcome"]))
            elif "what" in message:
                events.append(Progressed(slot, message["what"], message["done"], message["total"]))
            else:
                worker.ready = True
        return events

    def _gone(self, slot: int) -> Died:
        worker = self._workers[slot]
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=5)
        code = worker.process.poll()
        self.kill(slot)
        return Died(slot, _death(code), _tail(worker.log), began=worker.ready)

    def _over(self, limit: float) -> list[Event]:
        """Ends workers that take more memory than they may."""
        events: list[Event] = []
        for slot, worker in list(self._workers.items()):
            used = _memory(worker.process.pid)
            if used > limit * 2**30:
                self.kill(slot)
                why = f"it took {used / 2**30:.2f} GiB of memory, and {limit:g} GiB are allowed"
                events.append(Died(slot, why, _tail(worker.log), final=True))
        return events


@dataclass(frozen=True)
class Place:
    """What a slot may use.

    Attributes:
        threads: Of one worker.
        device: For the worker.
        cores: To bind it to; empty to let it roam.
        environment: Variables for it.
    """

    threads: int
    device: str
    cores: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def places(settings: RunSettings) -> list[Place]:
    """The slots of this machine: how many, and which cores and GPU each may use."""
    cores = available_cores()
    gpus = _gpus(settings)
    count = settings.workers or (len(gpus) or max(1, len(cores) // 2))
    threads = settings.threads or max(1, len(cores) // count)
    found = []
    for slot in range(count):
        own: tuple[int, ...] = ()
        if settings.pin:
            own = tuple(cores[(slot * threads + offset) % len(cores)] for offset in range(threads))
        environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        device = settings.device
        if gpus and device in ("auto", "cuda"):
            environment["CUDA_VISIBLE_DEVICES"] = str(gpus[slot % len(gpus)])
            device = "cuda"
        found.append(Place(threads, device, tuple(dict.fromkeys(own)), environment))
    return found


def available_cores() -> list[int]:
    """Cores that this process may run on."""
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


def _line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _death(code: int | None) -> str:
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


def _tail(path: Path) -> str:
    """What a worker printed last; of a crash of the interpreter, what it says of that."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
    crash = text.rfind("Fatal Python error")
    return text[crash : crash + _TAIL] if crash >= 0 else text[-_TAIL:]


def _memory(pid: int) -> int:
    """Resident bytes of a process; 0 where that can't be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def memory_peak(pid: int) -> int:
    """Bytes that a process took at most; 0 where that can't be told."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
