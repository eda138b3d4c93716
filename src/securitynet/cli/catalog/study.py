"""Commands that prepare studies: select, compare, validate, export."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console
from securitynet.cli.catalog.options import (
    Db,
    Duplicates,
    Json,
    Words,
    filtered,
    open_catalog,
)
from securitynet.cli.catalog.output import convert_to_json, print_table
from securitynet.errors import ConfigurationError

app = typer.Typer()


@app.command()
@filtered
def select(
    count: Annotated[int, typer.Argument(min=1, help="How many models to choose.")],
    codes: dict[str, str],
    text: Annotated[str, typer.Option("--text", help="Words that must all occur.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same models.")] = 0,
    facet: Annotated[
        list[str] | None,
        typer.Option(
            "--cover",
            metavar="CODE",
            help="What to cover (default: family, dataset, year, accuracy decile).",
            show_default=False,
        ),
    ] = None,
    any_model: Annotated[
        bool, typer.Option("--any", help="Also models that cannot be loaded, or are no classifiers.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the model list here (TOML).", show_default=False)
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Choose models that cover the range as widely as possible, and say what is covered and what is not.

    The objective is the mean share of values covered over the facets; it is maximised greedily. The output is a study
    file's model list.

    Example: securitynet catalog select 12 --dataset CIFAR-10,CIFAR-100 --seed 7 --out models.toml
    """
    from securitynet.catalog.selection import FACETS
    from securitynet.catalog.selection import select_models as choose
    from securitynet.files import write_atomically

    filters = {} if any_model else {"reference": "any", "head": "classifier", "task_type": "classification"}
    with open_catalog(db) as catalog:
        table = catalog.to_frame(catalog.query(text, filters={**filters, **codes}))
    selection = choose(table, count, seed=seed, facets=tuple(facet) if facet else FACETS)
    if out is not None:
        with write_atomically(out) as stream:
            stream.write(selection.as_toml().encode())
    if json:
        names = ["id", "reference", "name", "dataset", "family"]
        models = json_.loads(selection.chosen[names].to_json(orient="records"))
        console.print_json(
            {
                "models": models,
                "objective": selection.objective,
                "covered": selection.covered,
                "missing": selection.missing,
                "unknown": selection.unknown,
                "candidates": selection.candidates,
                "seed": selection.seed,
            }
        )
        return
    if out is None:
        console.print_text(selection.as_toml() + "\n")
    console.stderr.print(
        f"{len(selection.chosen)} of {selection.candidates:,} candidates, coverage {selection.objective:.3f}, "
        f"seed {seed}"
    )
    for name, covered in selection.covered.items():
        missing = selection.missing[name]
        rest = f"; not covered: {', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}" if missing else ""
        unknown = f"; unknown for {selection.unknown[name]}" if selection.unknown[name] else ""
        console.stderr.print(
            f"  {name}: {len(covered)} of {len(covered) + len(missing)}{rest}{unknown}", markup=False, soft_wrap=True
        )


@app.command()
@filtered
def compare(
    codes: dict[str, str],
    any_architecture: Annotated[
        bool, typer.Option("--any-architecture", help="Benchmark models of all families.")
    ] = False,
    db: Db = None,
    json: Json = False,
) -> None:
    """Compare benchmark with security models of like architecture and dataset (the paper's Figures 2 and 3).

    Accuracy, overfitting, and the clusters that a Gaussian mixture finds among the security models.
    """
    from securitynet.catalog.compare import compare_groups_of_models as run

    with open_catalog(db) as catalog:
        comparisons = run(catalog.to_frame(catalog.query(filters=codes)), any_architecture=any_architecture)
    if json:
        console.print_json([convert_to_json(item) for item in comparisons])
        return
    rows = []
    for item in comparisons:
        for measure, groups in (("test accuracy", item.accuracy), ("overfitting", item.overfitting)):
            rows += [
                [item.dataset, measure, purpose, g.n, g.mean, g.std, g.low, g.high] for purpose, g in groups.items()
            ]
        if len(item.clusters) > 1:
            rows += [[item.dataset, "test accuracy", f"security, cluster {n}", g.n, g.mean, g.std, g.low, g.high]
                     for n, g in enumerate(item.clusters, start=1)]  # fmt: skip
    if not rows:
        raise ConfigurationError(
            "No dataset has both benchmark and security models of known accuracy.",
            hint="Import the published tables first.",
        )
    print_table(("dataset", "measure", "models", "n", "mean", "std", "low", "high"), rows)


@app.command()
@filtered
def validate(
    codes: dict[str, str],
    text: Words = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask every linked server whether the page is there.")
    ] = False,
    db: Db = None,
    json: Json = False,
) -> None:
    """Look for entries that cannot be right. Exit code 1 if there are errors (warnings are only printed)."""
    from securitynet.catalog.validation import validate_entries as run

    with open_catalog(db) as catalog:
        query = catalog.query(" ".join(text or ()), filters=codes, duplicates=True)
        findings = list(run(catalog.database, query, online=online))
    errors = sum(finding.severity == "error" for finding in findings)
    if json:
        console.print_json([convert_to_json(finding) for finding in findings])
    else:
        for finding in findings:
            console.stdout.print(
                f"{finding.severity}: {finding.entry}: {finding.code}: {finding.message}", markup=False, soft_wrap=True
            )
        console.stderr.print(f"{errors} errors, {len(findings) - errors} warnings")
    raise typer.Exit(1 if errors else 0)


@app.command()
@filtered
def export(
    file: Annotated[Path, typer.Argument(help="Where to: .csv, .jsonl or .parquet.")],
    codes: dict[str, str],
    text: Annotated[str, typer.Option("--text", help="Words that must all occur.")] = "",
    duplicates: Duplicates = False,
    db: Db = None,
) -> None:
    """Write entries with their measured values to a file that `import` reads.

    Example: securitynet catalog export cifar.jsonl --dataset CIFAR-10
    """
    from securitynet.catalog.export import export as run

    with open_catalog(db) as catalog:
        number = run(catalog.database, catalog.query(text, filters=codes, duplicates=duplicates), file)
    console.stderr.print(f"{number:,} entries written to {file}", markup=False, soft_wrap=True)
