"""`securitynet figures`: the figures and tables of the two papers, and more, from the catalog or from studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console

app = typer.Typer(help="List and draw figures and tables.", no_args_is_help=True)

From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="STUDY|catalog",
        help="Folder of a study, or the catalog (can be repeated to combine several).",
        show_default=False,
    ),
]
Doubtful = Annotated[
    bool,
    typer.Option(
        "--doubtful", help="Include targets that failed a check (accuracy at chance, another class order, ...)."
    ),
]
Db = Annotated[str | None, typer.Option("--db", metavar="URL", help="The catalog's database.", show_default=False)]


@app.command("list")
def list_(
    source: From = None,
    db: Db = None,
    doubtful: Doubtful = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """List all figures; with --from, show which of them that data allows and what the others lack.

    Example: securitynet figures list --from catalog
    """
    from rich.table import Table

    from securitynet.analysis import sources
    from securitynet.analysis.figures.declared import list_figures

    tidy = sources.load_frames(source, db=db, doubtful=doubtful) if source else None
    rows = [
        {
            "name": figure.name,
            "title": figure.title,
            "source": figure.source,
            "lacks": None if tidy is None else figure.missing(tidy),
        }
        for figure in list_figures().values()
    ]
    if json:
        console.print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("name", "what", "where", *(["lacks"] if tidy is not None else [])):
        table.add_column(heading, no_wrap=heading == "name")
    for row in rows:
        lacks = [] if tidy is None else ["; ".join(row["lacks"] or []) or "[green]nothing[/]"]
        table.add_row(str(row["name"]), str(row["title"]), str(row["source"]), *lacks)
    console.stdout.print(table)


@app.command()
def draw(
    name: Annotated[str, typer.Argument(metavar="NAME|all", help="A figure from `figures list`, or all.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="File (.svg, .pdf, .png, .html, .csv); for all, or with --suffix, a folder.",
            show_default=False,
        ),
    ],
    source: From = None,
    db: Db = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="COLUMN=VALUE,...",
            help="Restrict to these models (can be repeated).",
            show_default=False,
        ),
    ] = None,
    doubtful: Doubtful = False,
    caption: Annotated[bool, typer.Option("--caption/--no-caption", help="Print the caption.")] = True,
    suffix: Annotated[
        str | None,
        typer.Option(
            "--suffix",
            help="Format of files in a folder: svg (default), png, pdf, html, csv or json.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw a figure, or all that the data allows, and print its caption with n, intervals and tests.

    Without --from, the data is the catalog.

    Example: securitynet figures draw securitynet-5 --from catalog --out stealing.svg
    """
    from securitynet.analysis import sources
    from securitynet.analysis.figures.declared import find_figure, list_figures
    from securitynet.analysis.figures.files import check_folder, check_suffix, read_suffix, write_figure
    from securitynet.errors import SecurityNetError

    chosen = list(list_figures().values()) if name == "all" else [find_figure(name)]
    in_folder = name == "all" or suffix is not None
    if in_folder:
        check_folder(out)
    else:
        check_suffix(out)
    suffix = read_suffix(suffix or ".svg")
    curves, pictures = name in ("all", "roc-bands"), any(one.options.get("pictures") for one in chosen)
    chosen_where = sources.parse_where(where or [])
    tidy = sources.load_frames(
        source or ["catalog"], db=db, where=chosen_where, curves=curves, pictures=pictures, doubtful=doubtful
    )
    broken = []
    for one in chosen:
        try:
            drawn = one.make(tidy)
            written = ".html" if drawn.chart is None and suffix != ".csv" else suffix
            path = out / f"{one.name}{written}" if in_folder else out
            write_figure(one, drawn, path)
        except SecurityNetError as error:  # such as MissingData
            if name != "all":
                raise
            console.stderr.print(f"[dim]{console.escape(error.message)}[/]", soft_wrap=True)
            continue
        except Exception as error:  # one figure must not cost the others
            if name != "all":
                raise
            broken.append(one.name)
            words = f"{one.name} could not be drawn: {type(error).__name__}: {error}"
            console.stderr.print(words, markup=False, soft_wrap=True, style="red")
            continue
        console.stdout.print(f"[bold]{path}[/]", soft_wrap=True)
        if caption:
            console.stdout.print(drawn.caption, soft_wrap=True, markup=False)
    if broken:
        raise SecurityNetError(
            f"{len(broken)} of {len(chosen)} figures could not be drawn: {', '.join(broken)}.",
            hint="The others are complete. This is a bug in securitynet: please report it.",
        )
