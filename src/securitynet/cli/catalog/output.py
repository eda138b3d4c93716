"""Printing entries and tables."""

from __future__ import annotations

from typing import Any

from securitynet.cli import console


def print_table(columns: tuple[str, ...], rows: list[list[Any]]) -> None:
    """Print a table on stdout."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(escape(as_text(cell)) for cell in row))
    # A pipe has no width: nothing need be cut there.
    console.stdout.print(table, width=None if console.stdout.is_terminal else 250)


def as_text(value: Any) -> str:
    """A value as people read it; nothing for a missing one."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def plain(item: Any) -> Any:
    """A dataclass as JSON types; NaN, which JSON lacks, as null."""
    from dataclasses import asdict

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and value != value else value

    return clean(asdict(item))
