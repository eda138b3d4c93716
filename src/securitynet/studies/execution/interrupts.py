"""What Ctrl-C and SIGTERM do to a run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handle_interrupts(stop: Callable[[], bool]) -> Iterator[None]:
    """Let the first Ctrl-C stop a run gently; the second, or SIGTERM, stops it at once.

    Args:
        stop: Called at each Ctrl-C; whether it is to be ended at once.

    Raises:
        KeyboardInterrupt: At a Ctrl-C for which ``stop`` says so.
        SystemExit: At SIGTERM.
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
    except ValueError:  # not in the main thread: whoever started this one handles signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
