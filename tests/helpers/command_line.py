"""Runs the command line in processes of its own that need not import torch and the rest again.

They are forks of a server that has imported the libraries, and has done nothing with them: a fork of the tests' own
process would inherit the locks of threads that it lacks.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import traceback
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch", "securitynet.cli.main", "securitynet.assessments.assess", "securitynet.reports.build"]
)


def run_command(
    arguments: list[str], folder: Path, *, timeout: float, kill_after: float | None = None, plain_user: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line; see the fixture ``run_cli``. Its streams go through files in ``folder``.

    With ``plain_user`` permissions bind it even if root runs the tests.
    """
    streams = folder / "stdout", folder / "stderr"
    command = ["securitynet", *arguments]
    process = _CONTEXT.Process(target=_run, args=(command, dict(os.environ), str(Path.cwd()), *streams, plain_user))
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


def _run(
    command: list[str], environment: dict[str, str], folder: str, stdout: Path, stderr: Path, plain_user: bool
) -> None:
    """Be the command line: with its own streams, and without the clean-up of multiprocessing."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = command
    if plain_user:
        drop_capabilities()
    if "DYING_UNDER" in environment:
        import dying

        dying.install(databases=True)
    from securitynet.cli.main import main

    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
