"""`securitynet removal`: whether records were removed from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console


def removal(
    model: Annotated[str, typer.Argument(help="The model after the removal: a reference.", show_default=False)],
    weights: Annotated[Path, typer.Option("--weights", help="Its weights.")],
    original: Annotated[
        Path, typer.Option("--original", help="Weights from before, with their model record beside them.")
    ],
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset of the original training.")],
    removed: Annotated[Path, typer.Option("--removed", help="List of the removed records, as for --members.")],
    count: Annotated[int, typer.Option("--count", min=1, help="Models to train without them.")] = 39,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="As for the original training.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON to stdout.")] = False,
) -> None:
    """Tell whether a model still knows records that were removed from it.

    It is compared with models that are trained like the original, without these records. The exit code is 3 if the
    model still knows them.

    Example: securitynet removal arch:simple-cnn --weights after.safetensors --original before.safetensors
    --dataset digits --removed removed.csv
    """
    from securitynet.assessments.training_defense import recreate_defense
    from securitynet.assessments.verify_removal import check_removal
    from securitynet.datasets import load
    from securitynet.datasets.members import with_members
    from securitynet.errors import ConfigurationError
    from securitynet.files import find_cache_folder
    from securitynet.models.loading.load import load_target
    from securitynet.models.store.record_files import read_target_record

    record = read_target_record(original)
    if record is None:
        raise ConfigurationError(
            f"There is no model record beside {original}.", hint="securitynet train writes one, NAME.json."
        )
    data = load(dataset, limit=limit)
    listed = with_members(data, removed).parts["train"]
    target = load_target(model, weights=weights, dataset=data, device=device)
    with console.show_progress() as report_progress:
        result = check_removal(
            target,
            data,
            listed,
            record,
            count=count,
            defense=recreate_defense(record),
            cache=find_cache_folder(),
            seed=seed,
            device=device,
            progress=lambda done, total: report_progress("training without them", done, total),
        )
    if json:
        console.print_json(result.model_dump(mode="json"))
    else:
        console.stdout.print(result.describe(), markup=False)
    if result.verdict == "remembered":
        raise typer.Exit(3)
