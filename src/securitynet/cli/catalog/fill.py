"""Commands that write: collect, import, add, edit, agreement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.catalog.codebook import load_codebook
from securitynet.cli import console
from securitynet.cli.catalog.options import (
    Db,
    Identifier,
    Json,
    Note,
    open_catalog,
    valued,
)
from securitynet.cli.catalog.output import as_text, convert_to_json, print_table, write_headline
from securitynet.errors import ConfigurationError, SecurityNetError

if TYPE_CHECKING:
    from securitynet.catalog.catalog import Catalog


app = typer.Typer()


@app.command()
def collect(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[COLLECTOR]...", help="Which collectors to run.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All collectors that need no network.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="huggingface: most models in this run.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Name each entry that is new, changed or gone.")] = False,
    db: Db = None,
    json: Json = False,
) -> None:
    """Harvest entries from installed model libraries (timm, torchvision, pytorchcv, robustbench) and the Hub.

    No weights are downloaded. Running it again brings entries up to date, keeps what people corrected, and says what is
    new, changed or gone: no longer in the library (such entries stay in the catalog).

    Example: securitynet catalog collect --all
    """
    from securitynet.catalog.collectors import COLLECTORS
    from securitynet.catalog.collectors.base import NotInstalled

    if not names and not everything:
        known = ", ".join(COLLECTORS)
        raise ConfigurationError("No collector was named.", hint=f"Write --all, or one of: {known}.")
    offline = [name for name in COLLECTORS if everything and not COLLECTORS.get(name).online]
    chosen = list(dict.fromkeys([*(COLLECTORS.resolve(name).name for name in names or ()), *offline]))
    reports = []
    with open_catalog(db) as catalog:
        for name in chosen:
            options = {"limit": limit} if limit is not None and COLLECTORS.get(name).online else {}
            console.stderr.print(f"collecting from {name} ...")
            try:
                reports.append(catalog.collect(name, **options))
            except NotInstalled as error:
                if names and name in names:
                    raise
                console.stderr.print(f"{error.message} {error.hint or ''}", soft_wrap=True)
        total, tasks = _totals(catalog)
    if json:
        listed = [
            {
                "collector": r.collector,
                "source": r.source,
                "added": r.entries.added,
                "changed": r.entries.changed,
                "unchanged": r.entries.unchanged,
                "kept": r.entries.kept,
                "linked": r.linked,
                "new": r.added,
                "different": r.changed,
                "gone": r.gone,
            }
            for r in reports
        ]
        console.print_json({"collectors": listed, "total": total, "tasks": tasks})
        return
    for r in reports:
        e = r.entries
        kept = f", {e.kept} corrections kept" if e.kept else ""
        console.stdout.print(
            f"{r.source}: {e.added} added, {e.changed} changed, {e.unchanged} as before, {len(r.gone)} gone, "
            f"{r.linked} duplicates linked{kept}"
        )
        for word, keys in (("new", r.added), ("changed", r.changed), ("gone", r.gone)) if details else ():
            for key in keys:
                console.stdout.print(f"  {word:<7} {key}", markup=False, soft_wrap=True)
    console.stdout.print(f"The catalog holds {write_headline(total, tasks)}.", soft_wrap=True)


@app.command("import")
def import_(
    location: Annotated[
        str,
        typer.Argument(help="File or URL (.md, .csv, .jsonl, .parquet); or timm-results or robustbench, and a folder."),
    ],
    folder: Annotated[
        Path | None, typer.Argument(help="Checkout of timm or RobustBench, for their published results.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if a row is bad.")] = False,
    source: Annotated[
        str | None, typer.Option("--source-name", help="What to name as the source.", show_default=False)
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Read entries from a published table. Bad rows are named with their line and left out.

    `timm-results FOLDER` and `robustbench FOLDER` read the published results in a checkout of either; those of a
    certain date are in the package, and `catalog collect` takes them.

    Example: securitynet catalog import securitynet-database.md
    """
    with open_catalog(db) as catalog:
        if folder is not None:
            report = catalog.import_published(location, folder, strict=strict)
        else:
            report = catalog.import_table(location, strict=strict, source=source)
    for problem in [*report.problems, *report.warnings]:
        console.stderr.print(str(problem), markup=False, soft_wrap=True)
    e, p = report.entries, report.papers
    if json:
        console.print_json(
            {
                "entries": {
                    "added": e.added,
                    "changed": e.changed,
                    "unchanged": e.unchanged,
                    "measurements": e.measurements,
                },
                "papers": {"added": p.added, "changed": p.changed, "unchanged": p.unchanged},
                "by_purpose": report.by_purpose,
                "linked": report.linked,
                "problems": [{"line": item.line, "reason": item.reason} for item in report.problems],
                "warnings": [{"line": item.line, "reason": item.reason} for item in report.warnings],
            }
        )
        return
    purposes = ", ".join(f"{count} {purpose}" for purpose, count in report.by_purpose.items())
    console.stdout.print(
        f"{e.total} models ({purposes}): {e.added} added, {e.changed} changed, {e.unchanged} as before"
    )
    if p.total:
        console.stdout.print(f"{p.total} papers: {p.added} added, {p.changed} changed, {p.unchanged} as before")
    console.stdout.print(
        f"{e.measurements} measured values stored, {report.linked} duplicates linked, {len(report.problems)} bad rows"
    )


@app.command()
@valued
def add(
    codes: dict[str, str],
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Ask for each code.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="Entries from a .csv, .jsonl or .parquet file.", show_default=False)
    ] = None,
    note: Note = None,
    db: Db = None,
) -> None:
    """Add one entry by its codes, by answering questions, or several from a file.

    Example: securitynet catalog add --name mine --dataset CIFAR-10 --architecture resnet20 --reference hf:me/mine
    """
    with open_catalog(db) as catalog:
        if file is not None:
            report = catalog.import_table(file)
            for problem in report.problems:
                console.stderr.print(str(problem), markup=False, soft_wrap=True)
            console.stdout.print(
                f"{report.entries.added} added, {report.entries.changed} changed, {len(report.problems)} bad rows"
            )
            return
        entry = catalog.add(_asked(codes) if interactive else codes, note=note)
    console.stdout.print(f"{entry.id}  {entry.key}", soft_wrap=True)


@app.command()
@valued
def edit(
    identifier: Identifier,
    codes: dict[str, str],
    clear: Annotated[
        list[str] | None, typer.Option("--clear", metavar="CODE", help="Say that a code is not known.")
    ] = None,
    same_as: Annotated[
        str | None, typer.Option("--same-as", metavar="ENTRY", help="Another entry stands for it.", show_default=False)
    ] = None,
    no_duplicate: Annotated[bool, typer.Option("--no-duplicate", help="It is no duplicate.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take it out of searches; its history stays.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Put it back.")] = False,
    note: Note = None,
    db: Db = None,
) -> None:
    """Correct an entry. What a person corrects, later collections keep; the state before stays readable.

    Example: securitynet catalog edit pytorchcv:resnet20_cifar10 --license MIT --note "asked the author"
    """
    changes = {**codes, **dict.fromkeys(clear or (), "")}
    if (same_as and no_duplicate) or (withdraw and restore):
        pair = "--withdraw and --restore" if withdraw and restore else "--same-as and --no-duplicate"
        raise ConfigurationError(f"{pair} contradict each other.", hint="Give one of them.")
    if not (changes or same_as or no_duplicate or withdraw or restore):
        raise ConfigurationError("Nothing was given to change.", hint="Give --CODE VALUE, or see --help.")
    with open_catalog(db) as catalog:
        entry = catalog.get(identifier).id
        known = len(catalog.history(entry))
        if changes:
            catalog.edit(entry, changes, note=note)
        if same_as or no_duplicate:
            catalog.link(entry, same_as, note=note)
        if withdraw or restore:
            catalog.withdraw(entry, note=note or "", restore=restore)
        made = catalog.history(entry)[known:]
    for state in made:
        for name, (before, after) in state.differences.items():
            console.stdout.print(f"{name}: {before} -> {after}", markup=False, soft_wrap=True)
    if not any(state.differences for state in made):
        console.stdout.print("confirmed" if made else "as before")


@app.command()
def agreement(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Annotations: CSV with a column `entry` and codes; one file a coder, or a column `coder`.",
        ),
    ] = None,
    show_disagreements: Annotated[
        bool, typer.Option("--disagreements", help="List values on which coders differ.")
    ] = False,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Write what they agree on, or the majority says, into the entries.")
    ] = False,
    decide: Annotated[
        list[str] | None, typer.Option("--decide", metavar="ENTRY:CODE=VALUE", help="Decide by hand (with --resolve).")
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Import annotations by several people; report Cohen's or Fleiss' kappa and Krippendorff's alpha per code.

    Example: securitynet catalog agreement alice.csv bob.csv --disagreements
    """
    from securitynet.catalog import agreement as library
    from securitynet.catalog.importers.annotations import read_annotations

    with open_catalog(db) as catalog:
        for path in files or ():
            for coder, rows in read_annotations(path).items():
                new = library.annotate(catalog, coder, rows)
                console.stderr.print(f"{path.name}: {new} new values by {coder}", markup=False)
        units = library.read_units(catalog)
        agreements = library.measure_agreement(units)
        open_ = library.list_disagreements(units)
        changed = None
        if resolve or decide:
            changed, open_ = library.resolve_values(catalog, library.parse_decisions(catalog, decide or ()))
    if json:
        console.print_json(
            {
                "agreement": [convert_to_json(item) for item in agreements],
                "disagreements": [convert_to_json(item) for item in open_],
                "entries_changed": changed,
            }
        )
        return
    columns = ("code", "coders", "units", "percent", "cohen", "fleiss", "krippendorff")
    print_table(
        columns, [[a.code, len(a.coders), a.units, a.percent, a.cohen, a.fleiss, a.krippendorff] for a in agreements]
    )
    if show_disagreements or changed is not None:
        listed = []
        for d in open_:
            values = ", ".join(f"{coder}: {as_text(value)}" for coder, value in d.values.items())
            listed.append([d.entry, d.code, values, d.majority])
        print_table(("entry", "code", "values", "majority"), listed)
    if changed is not None:
        console.stdout.print(f"{changed} entries changed, {len(open_)} disagreements left")


def _totals(catalog: Catalog) -> tuple[int, dict[str, int]]:
    from securitynet.catalog.codebook import find_code

    tasks = {task: catalog.query(task_type=task).count() for task in find_code("task_type").values}
    return catalog.query().count(), {task: count for task, count in tasks.items() if count}


def _asked(codes: dict[str, str]) -> dict[str, str]:
    """Ask for every code that was not given; a wrong answer is explained and asked for again."""
    answers = dict(codes)
    for info in load_codebook().values():
        if info.name in answers or info.name == "key":
            continue
        while True:
            choices = f" [{'|'.join(info.values)}]" if info.values else ""
            answer = typer.prompt(f"{info.name}{choices} ({info.meaning})", default="", show_default=False, err=True)
            try:
                info.parse(answer)
            except SecurityNetError as error:
                console.stderr.print(str(error), markup=False, soft_wrap=True)
                continue
            if answer.strip() or not info.required or info.name == "source":
                break
        if answer.strip():
            answers[info.name] = answer
    return answers
