"""The handling of Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handle_interrupts(stop: Callable[[], bool]) -> Iterator[None]:
    """Let the first Ctrl-C stop a run gently; the second, or SIGTERM, stops it at once.

    Args:
        stop: Called at each Ctrl-C; returns whether the run must end at once.

    Raises:
        KeyboardInterrupt: On a Ctrl-C for which ``stop`` returns true.
        SystemExit: On SIGTERM.
    """

    def interrupt(_: int, __: FrameType | None) -> None:
        if stop():
            raise KeyboardInterrupt

    def terminate(_: int, __: FrameType | None) -> None:
        raise SystemExit(143)

    before = {}
    try:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # outside the main thread, the caller handles signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
