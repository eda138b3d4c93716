"""The first screen of a report on the terminal: what was assessed, one line a family with a grade, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from securitynet.cli import console

if TYPE_CHECKING:
    from securitynet.results.document import ResultDocument
    from securitynet.results.grades import Grade

STYLES: dict[Grade, str] = {
    "high": "bold white on red",
    "moderate": "bold red",
    "slight": "yellow",
    "undecided": "bold",
    "none shown": "green",
    "not assessed": "dim",
}


def show_first_screen(document: ResultDocument, out: Path | None = None) -> None:
    """Print the facts, the grades and the next steps on stdout.

    Args:
        document: The result.
        out: Its folder, for commands that go on with it.
    """
    from rich.table import Table

    from securitynet.reports.first_screen import make_first_screen

    screen = make_first_screen(document, out)
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in screen.facts:
        style = "bold yellow" if name in screen.troubled else ""
        facts.add_row(name, console.escape(text), style=style)
    console.stdout.print(facts)
    console.stdout.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading, no_wrap in (("risk", True), ("grade", True), ("number and interval", False), ("what it means", False)):
        table.add_column(heading, no_wrap=no_wrap)
    for line in screen.lines:
        finding = line.finding
        number = ""
        if finding.numbers is not None:
            number = f"{finding.label}{finding.colon} {finding.numbers.value} ({finding.numbers.interval})"
        grade = f"[{STYLES[finding.grade]}]{finding.grade}[/]"
        table.add_row(finding.title, grade, console.escape(number), console.escape(finding.meaning))
    console.stdout.print(table)
    console.stdout.print("\n[dim]what to do next[/]")
    for line in screen.lines:
        if line.step is not None:
            titles = screen.name_families(line)
            console.stdout.print(f"[bold]{titles}:[/] {console.escape(line.step.what)}", soft_wrap=True)
            if line.step.command:
                console.stdout.print(f"  {console.escape(line.step.command)}", soft_wrap=True)
