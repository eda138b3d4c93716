"""`securitynet repair`: remove a backdoor from a trained model, and write the repaired weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.assessments.repair_config import RepairConfig
from securitynet.cli import console
from securitynet.cli.options import add_config_options

if TYPE_CHECKING:
    from securitynet.assessments.repair import RepairResult
    from securitynet.models.store.repair_record import RepairOutcome

LARGEST_SUCCESS = 0.1
"""Attack success rate from which on a repair is said to have failed."""

LARGEST_LOSS = 0.03
"""Loss of accuracy from which on the summary warns."""


@add_config_options(RepairConfig, positional=("model",))
def repair(
    config: RepairConfig,
    json: Annotated[bool, typer.Option("--json", help="Print the record of the repair as JSON to stdout.")] = False,
) -> None:
    """Remove a backdoor from a trained model; the accuracy and the attack success are measured before and after.

    Writes NAME.safetensors and NAME.json. Clean images that the model was not trained on are needed; half of them
    repair the model, and the others judge it.

    Example: securitynet repair arch:simple-cnn --weights model.safetensors --dataset digits --out repaired.safetensors
    """
    from securitynet.assessments.repair import repair_model
    from securitynet.memory import keep_freed_memory

    keep_freed_memory()
    with console.show_progress() as progress:
        result = repair_model(config, progress)
    if json:
        console.print_json({"weights": str(result.weights), **result.record.model_dump(mode="json")})
    else:
        show_repair(result)


def show_repair(result: RepairResult) -> None:
    """Print the measurements before and after the repair, and a verdict, on stdout."""
    record = result.record
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "before", "after"):
        table.add_column(heading, no_wrap=True)
    for name, first, second in list_measurement_rows(record.before, record.after):
        table.add_row(name, first, second)
    console.stdout.print(table)
    for sentence in describe_repair(record.before, record.after):
        console.stdout.print(sentence, markup=False, soft_wrap=True)
    for note in record.notes:
        console.stdout.print(f"[dim]{console.escape(note)}[/]", soft_wrap=True)
    console.stdout.print(f"Weights: {result.weights}", markup=False, soft_wrap=True)
    console.stdout.print(f"Record:  {result.weights.with_suffix('.json')}", markup=False, soft_wrap=True)


def list_measurement_rows(before: RepairOutcome, after: RepairOutcome) -> list[tuple[str, str, str]]:
    """The measurements as rows of (name, before, after)."""
    rows = [(f"accuracy ({before.records} held-out images)", f"{before.accuracy:.3f}", f"{after.accuracy:.3f}")]
    if before.success is not None and after.success is not None:
        name = f"attack success of the known trigger ({before.tried} images)"
        rows.append((name, f"{before.success:.3f}", f"{after.success:.3f}"))
    if before.reconstructed is not None and after.reconstructed is not None:
        name = "attack success of the reconstructed trigger"
        rows.append((name, f"{before.reconstructed:.3f}", f"{after.reconstructed:.3f}"))
    if before.scan is not None and after.scan is not None:
        rows.append(("smallest trigger found", _describe_scan(before), _describe_scan(after)))
    return rows


def _describe_scan(outcome: RepairOutcome) -> str:
    scan = outcome.scan
    if scan is None or scan.norm is None or scan.median is None:
        return "none"
    flagged = ", flagged" if scan.label in scan.flagged else ""
    return f"class {scan.label}: {scan.norm:.1f} of a median of {scan.median:.1f} pixels{flagged}"


def describe_repair(before: RepairOutcome, after: RepairOutcome) -> list[str]:
    """Say what the measurements show, and what they cannot show."""
    sentences = []
    if before.success is None or after.success is None:
        sentences.append(
            "No trigger of this model is known, so whether a backdoor was there, and whether it is gone, was not "
            "measured; a trigger that the search did not find may still work."
        )
    elif before.success < LARGEST_SUCCESS:
        sentences.append("The known trigger hardly worked before the repair, which therefore shows nothing.")
    elif after.success < LARGEST_SUCCESS:
        sentences.append("The known trigger no longer works. Other triggers were not tried.")
    else:
        sentences.append("The known trigger STILL WORKS. Try another --defense, or train the model again.")
    lost = before.accuracy - after.accuracy
    if lost > LARGEST_LOSS:
        sentences.append(f"The repair cost {lost:.1%} of accuracy, more than {LARGEST_LOSS:.0%}.")
    return sentences
