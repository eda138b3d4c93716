"""Printing entries and tables."""

from __future__ import annotations

from typing import Any

from securitynet.cli import console
from securitynet.escaping import escape_line


def print_table(columns: tuple[str, ...], rows: list[list[Any]]) -> None:
    """Print a table on stdout."""
    from rich.markup import escape
    from rich.table import Table

    from securitynet.terminal import SafeConsole

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # What one copies to the next command must not be cut.
        table.add_column(column, no_wrap=column in ("id", "entry"), overflow="fold")
    for row in rows:
        table.add_row(*(escape(escape_line(as_text(cell))) for cell in row))
    # A pipe has no width: nothing need be cut there.
    wide = console.stdout if console.stdout.is_terminal else SafeConsole(width=400, highlight=False)
    wide.print(table)


def as_text(value: Any) -> str:
    """A value as people read it; nothing for a missing one."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


_KINDS = {
    "classification": "classifiers",
    "zero-shot classification": "zero-shot classifiers",
    "feature extraction": "pretrained backbones that need a head",
}


def write_headline(total: int, tasks: dict[str, int]) -> str:
    """How many models there are, and of which kinds.

    Args:
        total: All of them, duplicates counted once.
        tasks: Task type -> how many.
    """
    # Backbones come from libraries of image classification; what was made for other tasks is not called so.
    unknown = total - sum(tasks.values())
    what = "image-classification models" if set(tasks) <= set(_KINDS) and not unknown else "models"
    kinds = [f"{count:,} {_KINDS.get(task, f'for {task}')}" for task, count in tasks.items()]
    kinds += [f"{unknown:,} of unknown task"] if unknown else []
    return f"{total:,} {what}, duplicates counted once" + (f": {', '.join(kinds)}" if kinds else "")


def convert_to_json(item: Any) -> Any:
    """A dataclass as JSON types; NaN, which JSON lacks, as null."""
    from dataclasses import asdict

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and value != value else value

    return clean(asdict(item))
