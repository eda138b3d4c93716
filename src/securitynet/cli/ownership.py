"""`securitynet ownership`: whether a model is a copy of the owner's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console


def ownership(
    model: Annotated[str, typer.Argument(help="Your model: a reference.", show_default=False)],
    suspect: Annotated[str, typer.Argument(help="The model in question: a reference.", show_default=False)],
    dataset: Annotated[str, typer.Option("--dataset", help="Labelled images of your model's kind.")],
    weights: Annotated[Path | None, typer.Option("--weights", help="Weights of your model.")] = None,
    suspect_weights: Annotated[Path | None, typer.Option("--suspect-weights", help="Weights of the suspect.")] = None,
    reference: Annotated[
        list[str] | None, typer.Option("--reference", help="An independent model of the same task; repeat for each.")
    ] = None,
    reference_weights: Annotated[
        list[Path] | None,
        typer.Option("--reference-weights", help="Weights of an independent model built like yours; repeat for each."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=100, help="Largest number of images; more show more.")] = 4000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON to stdout.")] = False,
) -> None:
    """Tell whether a model is a copy of yours, from its labels alone.

    Copies that start from your weights are recognised, and those that were trained anew on your model's outputs if they
    imitate it well. The suspect is asked once for each image. A verdict takes at least 19 independent models.

    Example: securitynet ownership arch:simple-cnn http://host:8000/predict --weights mine.safetensors --dataset digits
    --reference-weights other-1.safetensors --reference-weights other-2.safetensors
    """
    from securitynet.assessments.ownership import choose_images, compare_with_suspect
    from securitynet.datasets import load, public
    from securitynet.models.loading.load import load_target

    data = load(dataset)
    owned = load_target(model, weights=weights, dataset=data, device=device)
    doubted = load_target(suspect, weights=suspect_weights, dataset=data, device=device)
    independent = [load_target(name, dataset=data, device=device) for name in reference or ()]
    independent += [load_target(model, weights=path, dataset=data, device=device) for path in reference_weights or ()]
    records = choose_images(public(data).non_members, count, seed)
    result = compare_with_suspect(owned, doubted, independent, data, records)
    if json:
        console.print_json(result.model_dump(mode="json"))
    else:
        console.stdout.print(result.describe(), markup=False)
