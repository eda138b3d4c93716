"""A lock for places without locks of their own, such as object stores: numbered files that are created, never replaced.

The store guarantees that only one runner can create a file that is not there. A runner holds the lock if it created the
file with the highest number, and it renews the content of that file until it releases it. A runner whose file stops
changing is dead; the next one creates the following number. Whoever wakes up later holds a lower number, and writes
nothing more (`has_successor`). Clocks of different machines are never compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from securitynet.errors import SecurityNetError
from securitynet.results.root import Root

FOLDER = "locks"
BEAT_SECONDS = 5.0
PATIENCE = 3 * BEAT_SECONDS
_POLL = 0.5
_KEPT = 50
"""Numbers of earlier runners that stay, so that one that was suspended for long still finds its successor."""
_NAME = re.compile(rf"{FOLDER}/(\d{{8}})\.json")


class StudyRuns(SecurityNetError):
    """Another runner is working on this study."""


@contextlib.contextmanager
def hold_numbered_lock(root: Root, note: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock of a root.

    Args:
        root: The root.
        note: Called with a message when the lock of another runner is found.

    Yields:
        The number of this runner, higher than that of every runner before it.

    Raises:
        StudyRuns: If another runner holds the lock.
    """
    mine = {"pid": os.getpid(), "host": platform.node(), "token": os.urandom(8).hex()}
    number = _acquire(root, mine, note)
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT_SECONDS):
            count += 1
            with contextlib.suppress(Exception):  # the store may be unavailable for a moment
                if has_successor(root, number):
                    return
                root.write(_name(number), _content(mine, beat=count))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield number
    finally:
        stop.set()
        thread.join()
        root.write(_name(number), _content(mine, released=True))


def has_successor(root: Root, number: int) -> bool:
    """Whether another runner has taken over from the one with this number."""
    return root.exists(_name(number + 1))


def _acquire(root: Root, mine: dict[str, Any], note: Callable[[str], None]) -> int:
    noted = False
    while True:
        numbers = sorted(int(match[1]) for path, _ in root.files(FOLDER, ".json") if (match := _NAME.fullmatch(path)))
        last = numbers[-1] if numbers else 0
        before = _read(root, last) if last else None
        if before is not None and not _parse(before).get("released"):
            if not noted:
                note(f"Found the mark of a runner in {root.name}; waiting to see whether it is alive.")
                noted = True
            if not _is_dead(root, last, before):
                continue  # it was released, or another runner has taken over
        if root.create(_name(last + 1), _content(mine, beat=0)):
            for old in numbers[:-_KEPT]:
                root.remove(_name(old))
            return last + 1


def _is_dead(root: Root, number: int, before: bytes) -> bool:
    """Wait and see whether a runner renews its mark; False if it has ended in order.

    Raises:
        StudyRuns: If it does renew it.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(min(_POLL, BEAT_SECONDS))
        now = _read(root, number)
        if now is None or has_successor(root, number) or _parse(now).get("released"):
            return False
        if now != before:
            raise StudyRuns(
                f"Another runner is working on this study (on {_parse(now).get('host', 'another machine')}).",
                hint="Wait for it, or stop it with Ctrl-C.",
            )
    return True


def _name(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"


def _content(mine: dict[str, Any], **state: Any) -> bytes:
    return json.dumps({**mine, **state}).encode()


def _read(root: Root, number: int) -> bytes | None:
    try:
        return root.read(_name(number))
    except FileNotFoundError:
        return None


def _parse(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
