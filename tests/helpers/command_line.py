"""Runs the command line, or a script, in processes of its own that need not import torch and the rest again.

They are forks of a server that has imported the libraries, and has done nothing with them: a fork of the tests' own
process would inherit the locks of threads that it lacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch._dynamo",
        "sklearn.datasets",
        "securitynet.cli.main",
        "securitynet.assessments.assess",
        "securitynet.reports.build",
        "securitynet.studies.execution.worker_tasks",
    ]
)


def run_command(
    arguments: list[str], folder: Path, *, timeout: float, kill_after: float | None = None, plain_user: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line; see the fixture ``run_cli``. Its streams go through files in ``folder``.

    With ``plain_user`` permissions bind it even if root runs the tests.
    """
    streams = folder / "stdout", folder / "stderr"
    command = ["securitynet", *arguments]
    process = CONTEXT.Process(target=_run, args=(command, dict(os.environ), str(Path.cwd()), *streams, plain_user))
    process.start()
    process.join(timeout if kill_after is None else kill_after)
    late = process.is_alive()
    process.kill()
    process.join()
    if late and kill_after is None:
        raise subprocess.TimeoutExpired(command, timeout)
    texts = [stream.read_text() if stream.exists() else "" for stream in streams]
    return subprocess.CompletedProcess(command, process.exitcode or 0, *texts)


def drop_capabilities() -> None:
    """Let permissions of files bind this process, as they bind any user but root. Only on Linux."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the version of the interface; this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; of 32 capabilities and of the others
    if libc.capget(header, sets) == 0:
        for index in range(3):
            sets[index] &= ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        libc.capset(header, sets)


class Script:
    """A process that runs a script as ``python -c`` does; ``stdout`` gives the lines that it prints."""

    def __init__(self, code: str, *arguments: object) -> None:
        reader, writer = CONTEXT.Pipe(duplex=False)
        command = ["-c", *map(str, arguments)]
        self._process = CONTEXT.Process(
            target=_run_script, args=(code, command, dict(os.environ), str(Path.cwd()), writer)
        )
        self._process.start()
        writer.close()
        self.stdout: TextIO = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal, and return the exit code when the process has ended."""
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)
        return self.wait()

    def wait(self, timeout: float = 120) -> int:
        """Return the exit code when the process has ended; a signal's number is negative."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("script", timeout)
        return self._process.exitcode

    def is_running(self) -> bool:
        return self._process.is_alive()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self.stdout.close()


@contextlib.contextmanager
def start_script(code: str, *arguments: object) -> Iterator[Script]:
    """Start a script in a process of its own, which ends with the block."""
    with contextlib.closing(Script(code, *arguments)) as script:
        yield script


def run_script(code: str, *arguments: object) -> int:
    """Run a script in a process of its own, and return its exit code."""
    with start_script(code, *arguments) as script:
        return script.wait()


def _run_script(code: str, command: list[str], environment: dict[str, str], folder: str, output: Connection) -> None:
    become(command, environment, folder, (output.fileno(), os.dup(2)))
    finish(lambda: exec(compile(code, "<script>", "exec"), {"__name__": "__main__"}))


def _run(
    command: list[str], environment: dict[str, str], folder: str, stdout: Path, stderr: Path, plain_user: bool
) -> None:
    streams = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (stdout, stderr)]
    become(command, environment, folder, (streams[0], streams[1]))
    if plain_user:
        drop_capabilities()
    if "DYING_UNDER" in environment:
        import dying

        dying.install(databases=True)
    from securitynet.cli.main import main

    finish(main)


def become(command: list[str], environment: dict[str, str], folder: str, streams: tuple[int, int]) -> None:
    """Take on the arguments, the environment, the folder and the streams of a program."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = command


def finish(program: Callable[[], object]) -> None:
    """Run a program, and end without the clean-up of multiprocessing."""
    code = 0
    try:
        program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
