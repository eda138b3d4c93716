"""Progress bars on stderr, shown only on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def show_progress_bar(
    description: str, total: int | None, *, in_bytes: bool = False
) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances the bar by a number of steps.

    Args:
        description: The task.
        total: Number of steps; None if unknown.
        in_bytes: Whether steps are bytes.
    """
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from securitynet.terminal import SafeConsole

    console = SafeConsole(stderr=True)
    if not console.is_terminal:
        yield lambda steps: None
        return
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)
