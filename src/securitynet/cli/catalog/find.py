"""Commands that look: search, show, history, stats, leaderboard, papers, codebook."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.catalog.codebook import as_json, as_markdown, list_overview_codes, load_codebook
from securitynet.cli import console
from securitynet.cli.catalog.options import (
    Db,
    Duplicates,
    Identifier,
    Json,
    Words,
    filtered,
    open_catalog,
)
from securitynet.cli.catalog.output import as_text, print_table, write_headline
from securitynet.errors import ConfigurationError

if TYPE_CHECKING:
    from securitynet.catalog.catalog import Catalog

app = typer.Typer()


@app.command()
@filtered
def search(
    codes: dict[str, str],
    text: Words = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", metavar="CODE", help="Sort by a code or a measured name; -CODE: descending.", show_default=False
        ),
    ] = None,
    measured: Annotated[
        list[str] | None,
        typer.Option(
            "--measured",
            metavar="NAME=FILTER",
            help="Filter by a measured name, such as accuracy.test=0.9.. (can be repeated).",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most entries to print.")] = 50,
    after: Annotated[
        str | None, typer.Option("--after", help="Go on after a page (what it printed).", show_default=False)
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print how many match, and nothing else.")] = False,
    duplicates: Duplicates = False,
    output: Annotated[str, typer.Option("--output", help="table, json or csv.")] = "table",
    db: Db = None,
    json: Json = False,
) -> None:
    """Find entries by words and codes; one page at a time.

    Filters: CIFAR-10,SVHN (any of), 2016..2020, >=0.9, '!VGG' (not), none or any (whether it is known).

    Example: securitynet catalog search resnet --dataset CIFAR-10 --claimed-accuracy '>=0.9' --sort -accuracy.test
    """
    output = "json" if json else output
    if output not in ("table", "json", "csv"):
        raise ConfigurationError(f"There is no output {output!r}.", hint="Choose table, json or csv.")
    with open_catalog(db) as catalog:
        filters = {**codes, **_read_measured(measured or [])}
        query = catalog.query(" ".join(text or ()), filters=filters, sort=sort, duplicates=duplicates)
        if count:
            number = query.count()
            console.print_json(number) if output == "json" else console.stdout.print(str(number))
            return
        page = query.page(limit, after)
        if not page.entries and after is None:
            _explain_nothing(catalog, codes)
        shown = [name for name in dict.fromkeys([str(sort or "").lstrip("-"), *filters]) if "." in name]
        values = {name: catalog.measured_values(name) for name in shown}
    records = [
        {"id": entry.id, **entry.known(), **{n: of[entry.id] for n, of in values.items() if entry.id in of}}
        for entry in page.entries
    ]
    if output == "json":
        console.print_json({"entries": records, "after": page.after})
    elif output == "csv":
        from securitynet.catalog.export import as_csv

        console.print_text(as_csv([{**record, "measurements": []} for record in records]))
    else:
        columns = ("id", *list_overview_codes(), *values)
        print_table(columns, [[record.get(name) for name in columns] for record in records])
    if page.after and output != "json":
        console.stderr.print(f"More: --after {shlex.quote(page.after)}", markup=False, soft_wrap=True)


def _read_measured(texts: list[str]) -> dict[str, str]:
    """Measured name -> filter, from ``NAME=FILTER``."""
    filters = {}
    for text in texts:
        # A name may hold an equals sign itself: accuracy.threat=Linf.autoattack=0.5..
        match = re.fullmatch(r"(?P<name>[^<>]+\.[^<>]*[^<>=])=(?P<filter>[<>]=?[^=]+|[^=<>]+)", text)
        if match is None:
            raise ConfigurationError(f"--measured {text!r} is invalid.", hint="Write NAME=FILTER: accuracy.test=0.9..")
        filters[match["name"]] = match["filter"]
    return filters


@app.command()
def show(
    identifier: Identifier,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="As it was at a time (2026-03-31).", show_default=False)
    ] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Show all that is known about one entry, where each value comes from, and what was measured on it."""
    from securitynet.catalog.history import state_at

    with open_catalog(db) as catalog:
        details = catalog.details(identifier)
        past = state_at(catalog.history(identifier), at) if at else None
    if at and past is None:
        raise ConfigurationError(
            f"{details.entry.key} was not there at {at}.", hint="See `securitynet catalog history`."
        )
    entry, sources = (past.entry, past.sources) if past else (details.entry, details.sources)
    measured = [] if at else details.measured
    if json:
        console.print_json(
            {
                "id": entry.id,
                **entry.known(),
                "sources": sources,
                "version": past.version if past else details.version,
                "measurements": [vars(m) for m in measured],
                "duplicate_of": past.duplicate_of if past else details.duplicate_of,
                "duplicates": details.duplicates,
                "withdrawn": past.withdrawn if past else details.withdrawn,
            }
        )
        return
    rows = [[name, as_text(value), sources.get(name, "")] for name, value in entry.known().items()]
    print_table(("code", entry.id, "source"), rows)
    if measured:
        print_table(
            ("measured", "value", "by", "source"), [[m.name, m.value, m.measured_by, m.source] for m in measured]
        )
    for key, rule in details.duplicates.items():
        console.stdout.print(f"the same weights: {key} (by {rule})", markup=False, soft_wrap=True)
    if details.duplicate_of:
        console.stdout.print(f"a duplicate of {details.duplicate_of}")
    if details.withdrawn:
        console.stdout.print("withdrawn")


@app.command()
def history(identifier: Identifier, db: Db = None, json: Json = False) -> None:
    """Show every change of an entry: when, by whom, from which source, and what it changed."""
    with open_catalog(db) as catalog:
        states = catalog.history(identifier)
    if json:
        names = ("version", "time", "kind", "source", "actor", "note", "differences", "withdrawn", "duplicate_of")
        console.print_json([{name: getattr(state, name) for name in names} for state in states])
        return
    for state in states:
        why = f": {state.note}" if state.note else ""
        line = f"{state.version}  {state.time}  {state.kind} by {state.actor}, from {state.source}{why}"
        console.stdout.print(line, markup=False, soft_wrap=True)
        for name, (before, after) in state.differences.items() if state.version > 1 else ():
            console.stdout.print(f"    {name}: {as_text(before)} -> {as_text(after)}", markup=False, soft_wrap=True)


@app.command()
@filtered
def stats(
    codes: dict[str, str],
    text: Words = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Most values of each code to print.")] = 10,
    db: Db = None,
    json: Json = False,
) -> None:
    """Count entries by year, country, venue, dataset and model type, by purpose (Figure 1); what is known of them."""
    from securitynet.catalog.stats import FIGURE_1, count_entries, measure_coverage

    with open_catalog(db) as catalog:
        frame = catalog.to_frame(catalog.query(" ".join(text or ()), filters=codes))
    stats, known = count_entries(frame), measure_coverage(frame)
    if json:
        counts = {name: table.to_dict("records") for name, table in stats.counts.items()}
        console.print_json({"total": stats.total, "purposes": stats.purposes, "tasks": stats.tasks, "counts": counts,
                            "distinct": stats.distinct, "known": stats.known,
                            "coverage": known.to_dict("index")})  # fmt: skip
        return
    purposes = ", ".join(f"{count:,} {purpose}" for purpose, count in stats.purposes.items())
    console.stdout.print(f"{write_headline(stats.total, stats.tasks)}; {purposes or 'none'}", soft_wrap=True)
    for name, heading in FIGURE_1.items():
        table = stats.counts[name]
        console.stdout.print(
            f"\n[bold]{heading}[/]: {stats.distinct[name]} distinct, known for {stats.known[name]:.1%}"
        )
        shown = table if name == "year" else table.head(top)
        print_table(tuple(map(str, table.columns)), shown.to_numpy().tolist())
    console.stdout.print("\n[bold]Known[/]: share of entries, of all and by source")
    rows = [[name, *(f"{share:.0%}" for share in row)] for name, row in zip(known.index, known.to_numpy(), strict=True)]
    print_table(("code", *map(str, known.columns)), rows)


@app.command()
def leaderboard(
    dataset: Annotated[str, typer.Argument(help="Dataset; without it, the leaderboards that there are.")] = "",
    threat: Annotated[str, typer.Option("--threat", help="Linf, L2 or corruptions.")] = "Linf",
    attacks: Annotated[
        bool, typer.Option("--attacks", help="Every attack that was measured, published and reproduced, side by side.")
    ] = False,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="NAME", help="With --attacks: the measured value to order by.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most models to print.")] = 50,
    db: Db = None,
    json: Json = False,
) -> None:
    """Order the models of a dataset by their accuracy under attack: reported, standard, best known and reproduced.

    The first three are published (`catalog collect robustbench`); the last is the lowest of your own trials (`study
    publish`). With --attacks, membership inference, stealing and the other attacks stand beside each other.

    Example: securitynet catalog leaderboard CIFAR-10 --threat L2
    """
    if attacks or sort:
        _print_attacks(dataset, sort, limit, db, json)
        return
    from dataclasses import asdict

    from securitynet.catalog.leaderboard import COLUMNS, list_leaderboards, make_leaderboard

    with open_catalog(db) as catalog:
        if not dataset:
            offered = list_leaderboards(catalog)
            if json:
                console.print_json([dict(zip(("dataset", "threat", "models"), row, strict=True)) for row in offered])
            else:
                print_table(("dataset", "threat", "models"), [list(row) for row in offered])
            return
        board = make_leaderboard(catalog, dataset, threat)
    if json:
        console.print_json(asdict(board))
        return
    if not board.rows:
        raise ConfigurationError(
            f"No model of {board.dataset} has a known accuracy under {threat}.",
            hint="See which leaderboards there are: securitynet catalog leaderboard",
        )
    table = [
        [str(place), row.label, row.architecture, row.year, *(row.values[column] for column in COLUMNS)]
        for place, row in enumerate(board.rows[:limit], start=1)
    ]
    print_table(("#", "model", "architecture", "year", *COLUMNS), table)


def _print_attacks(dataset: str, order: str | None, limit: int, db: str | None, json: bool) -> None:
    """The leaderboard of all attacks; without a dataset, which there are."""
    from dataclasses import asdict

    from securitynet.catalog.attack_board import list_attack_boards, make_attack_board

    with open_catalog(db) as catalog:
        offered = [] if dataset else list_attack_boards(catalog)
        board = make_attack_board(catalog, dataset, order) if dataset else None
    if board is None:
        columns = ("dataset", "models")
        if json:
            console.print_json([dict(zip(columns, row, strict=True)) for row in offered])
        else:
            print_table(columns, [list(row) for row in offered])
    elif json:
        console.print_json(asdict(board))
    elif not board.rows:
        raise ConfigurationError(
            f"No attack on a model of {board.dataset} is known.",
            hint="See which leaderboards there are: securitynet catalog leaderboard --attacks",
        )
    else:
        # One line for each attack on a model: a terminal is too narrow for a column for each.
        order_first = sorted(board.measures, key=lambda name: name != board.order)
        table = [
            [str(place), row.label, name, row.cells[name].published, row.cells[name].reproduced]
            for place, row in enumerate(board.rows[:limit], start=1)
            for name in order_first
            if name in row.cells
        ]
        print_table(("#", "model", "attack", "published", "reproduced"), table)


@app.command("codebook")
def codebook_(json: Json = False) -> None:
    """Print the codebook: every code with its type, allowed values and meaning."""
    console.print_json(as_json()) if json else console.print_text(as_markdown() + "\n")


@app.command()
def papers(db: Db = None, json: Json = False) -> None:
    """List imported papers that publish weights."""
    with open_catalog(db) as catalog:
        rows = catalog.papers()
    if json:
        console.print_json(rows)
    else:
        columns = ("title", "venue", "year", "weights_link", "note")
        print_table(columns, [[row[name] for name in columns] for row in rows])


def _explain_nothing(catalog: Catalog, codes: dict[str, str]) -> None:
    """Say which filter names a value that no entry has, and what may have been meant."""
    from securitynet.catalog.identify import suggest_values

    console.stderr.print("No entry matches.")
    with catalog.database.read() as connection:
        for name, value in codes.items():
            info = load_codebook()[name]
            plain_text = info.kind == "text" and "," not in value and not value.startswith("!")
            if plain_text and catalog.query(filters={name: value}, duplicates=True).count() == 0:
                close = suggest_values(connection, name, value)
                hint = f" Did you mean {close}?" if close else ""
                console.stderr.print(f"No entry has {info.option} {value}.{hint}", markup=False, soft_wrap=True)
