"""Runs the command line in processes of its own that need not import torch and the rest again.

They are forks of a server that has imported the libraries, and has done nothing with them: a fork of the tests' own
process would inherit the locks of threads that it lacks.
"""

from __future__ import annotations

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
    arguments: list[str], folder: Path, *, timeout: float, kill_after: float | None = None, user: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line; see the fixture ``run_cli``. Its streams go through files in ``folder``.

    With ``user`` it runs with that user's rights, which only root can arrange.
    """
    streams = folder / "stdout", folder / "stderr"
    command = ["securitynet", *arguments]
    process = _CONTEXT.Process(target=_run, args=(command, dict(os.environ), str(Path.cwd()), *streams, user))
    process.start()
    process.join(timeout if kill_after is None else kill_after)
    late = process.is_alive()
    process.kill()
    process.join()
    if late and kill_after is None:
        raise subprocess.TimeoutExpired(command, timeout)
    texts = [stream.read_text() if stream.exists() else "" for stream in streams]
    return subprocess.CompletedProcess(command, process.exitcode or 0, *texts)


def _run(
    command: list[str], environment: dict[str, str], folder: str, stdout: Path, stderr: Path, user: int | None
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
    if user is not None:
        os.setgid(user)
        os.setuid(user)
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
