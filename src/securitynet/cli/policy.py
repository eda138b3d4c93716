"""Whether a policy is met, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securitynet.cli import console

if TYPE_CHECKING:
    from securitynet.results.policy import PolicyOutcome

POLICY_NOT_MET = 3
"""Exit code."""


def show_outcome(outcome: PolicyOutcome) -> None:
    """Print whether a policy is met, and a table of the bounds that are not."""
    from rich.table import Table

    if outcome.met:
        console.stdout.print(f"\n[green]The policy is met[/] ({outcome.bounds} bounds).")
        return
    console.stdout.print(
        f"\n[bold red]The policy is not met:[/] {len(outcome.violations)} of {outcome.bounds} bounds do not hold."
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("measurement", "must be", "because"):
        table.add_column(heading)
    for violation in outcome.violations:
        table.add_row(*map(console.escape, (violation.name, violation.bound, violation.why)))
    console.stdout.print(table)
