"""Printing: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import rich.markup
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from securitynet.escaping import escape_controls, escape_json_controls, escape_line
from securitynet.terminal import SafeConsole

_LONGEST_MESSAGE = 4000


def _open_missing_streams() -> None:
    """Open those of stdin, stdout and stderr that whoever started this process has closed.

    The next file that is opened would take their place, and what a library prints would be written into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


_open_missing_streams()

# A pipe or a file has no width; at 80 columns, names would be cut that somebody may search for.
stdout = SafeConsole(highlight=False, width=None if sys.stdout.isatty() else 140)
stderr = SafeConsole(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    document = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(escape_json_controls(document) + "\n")


def print_text(text: str) -> None:
    """Write a text to stdout as it is, neither wrapped nor styled, with visible control characters."""
    sys.stdout.write(escape_controls(text))


def print_error(message: str, hint: str | None) -> None:
    """Write an error and what to do about it to stderr; texts of any length, which files may hold, are shortened."""
    stderr.print(f"[bold red]error:[/] {escape(_shorten(message))}", soft_wrap=True)
    if hint:
        stderr.print(f"[dim]hint:[/]  {escape(_shorten(hint))}", soft_wrap=True)


def _shorten(text: str) -> str:
    if len(text) <= _LONGEST_MESSAGE:
        return text
    half = _LONGEST_MESSAGE // 2
    return f"{text[:half]} … {text[-half:]}"


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback of an unexpected error to stderr: the hook for `sys.excepthook`."""
    sys.stderr.write(escape_controls("".join(traceback.format_exception(kind, error, trace))))


_verbosity = 0


def set_verbosity(level: int) -> None:
    """Say how much is printed: -1 errors and results, 0 also what happens, 1 also details."""
    global _verbosity
    _verbosity = level
    names = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}
    logging.getLogger("securitynet").setLevel(names[level])


def is_verbose() -> bool:
    """Whether details were asked for, with ``-v``."""
    return _verbosity > 0


def set_up_logging() -> None:
    """Send this package's log, and the warnings and unexpected errors of all, to stderr."""
    sys.excepthook = print_traceback
    logging.captureWarnings(True)
    handler = RichHandler(console=stderr, show_time=False, show_path=False, markup=False)
    handler.addFilter(remove_level)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    set_verbosity(0)


def remove_level(record: logging.LogRecord) -> bool:
    """Take a warning's own WARNING from a message that the handler begins with its level; our messages are one line."""
    if record.levelno >= logging.WARNING:
        record.msg, record.args = record.getMessage().removeprefix("WARNING: "), None
    if record.name.partition(".")[0] == "securitynet":  # Python's own warnings have several lines
        record.msg, record.args = escape_line(record.getMessage()), None
    return True


def escape(text: str) -> str:
    """Text that Rich prints literally; otherwise ``[b]`` in a path or a class name would be read as markup."""
    return rich.markup.escape(text)


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress display on stderr; yields a function (what, done, total) that any number of tasks may call."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as display:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = display.add_task(what, total=total)
            display.update(tasks[what], completed=done, total=total)

        yield update
