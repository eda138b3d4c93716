"""The console through which everything reaches a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

from securitynet.escaping import escape_controls, escape_line


class SafeConsole(Console):
    """A console that shows control characters in texts instead of sending them to the terminal.

    Names of models, classes and files, and the errors of servers, come from others; codes of emoji in them stay as they
    are. Colours and progress bars are rich's own: they are not part of the texts.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"emoji": False, **options})  # ``folder:two: 90 records`` names no emoji

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_controls(segment.text), segment.style)

    @override
    def print(self, *objects: Any, **options: Any) -> None:
        """Print; a text is one line, with empty ones before it: a name in it may not pretend to be a line of ours."""
        super().print(*(_join_lines(item) if isinstance(item, str) else item for item in objects), **options)

    @override
    def out(self, *objects: Any, **options: Any) -> None:
        super().out(*(escape_controls(str(item)) for item in objects), **options)


def _join_lines(text: str) -> str:
    line = text.lstrip("\n")
    return "\n" * (len(text) - len(line)) + escape_line(line)
