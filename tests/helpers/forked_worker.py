"""Workers of a study that are forks of the tests' server, so that they need not import torch and the rest again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import BinaryIO

from command_line import CONTEXT, become, finish


class ForkedWorker:
    """Stands for the `subprocess.Popen` of a worker of `LocalExecutor`: the same code in a process of its own.

    The worker ends with the tests' server, not with the runner: what a killed runner leaves is tested without this.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: BinaryIO,
        stderr: int,
        env: dict[str, str],
        pass_fds: Sequence[int],
        start_new_session: bool,
    ) -> None:
        assert start_new_session and (stdin, stderr) == (subprocess.DEVNULL, subprocess.STDOUT)
        assert command[-2] == str(pass_fds[0])
        descriptors = [_Descriptor(number) for number in (stdout.fileno(), *pass_fds)]
        self._command = list(command)
        self._process = CONTEXT.Process(target=_run, args=(env, str(Path.cwd()), *descriptors))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


class _Descriptor:
    """A file descriptor that another process opens by unpickling this."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        return _take, (reduction.DupFd(self.number),)


def _take(descriptor: reduction.DupFd) -> int:
    return descriptor.detach()


def _run(environment: dict[str, str], folder: str, output: int, link: int, *_held: int) -> None:
    os.close(forkserver._forkserver._forkserver_alive_fd)  # the server ends although workers still run
    os.setsid()
    become(["worker", str(link), str(os.getppid())], environment, folder, (output, os.dup(output)))
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    from securitynet.studies.execution.executors.worker import main

    finish(main)
