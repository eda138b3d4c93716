"""`securitynet catalog`: the database of public models. Filters on codes are generated from the codebook."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from securitynet.catalog.codebook import CodeInfo, as_json, as_markdown, codebook
from securitynet.cli import console
from securitynet.errors import ConfigurationError

if TYPE_CHECKING:
    from securitynet.catalog.catalog import Catalog

app = typer.Typer(help="Find, collect, correct and choose public models.", no_args_is_help=True)

Db = Annotated[str | None, typer.Option("--db", metavar="URL", help="Database URL, or a SQLite file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Identifier = Annotated[str, typer.Argument(metavar="ENTRY", help="Id, key, reference, or a name that only one has.")]
Note = Annotated[str | None, typer.Option("--note", help="Why; kept in the history.", show_default=False)]
Words = Annotated[list[str] | None, typer.Argument(metavar="[WORDS]...", help="Words that must all occur.")]
Duplicates = Annotated[bool, typer.Option("--duplicates", help="Show duplicates too.")]

_COLUMNS = ("id", "name", "source", "dataset", "family", "year", "claimed_accuracy", "parameters")


def _with_codes(panel: str, describe: Callable[[CodeInfo], str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per code of the codebook; it receives those that were given as ``codes``."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "codes"]
        generated = [
            inspect.Parameter(
                f"code_{info.name}",
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    str | None,
                    typer.Option(info.option, help=describe(info), show_default=False, metavar="VALUE",
                                 rich_help_panel=f"{panel}: {info.group}"),
                ],
            )
            for info in codebook().values()
        ]  # fmt: skip

        def command(**values: Any) -> None:
            codes = {name: values.pop(f"code_{name}") for name in codebook()}
            function(**values, codes={name: value for name, value in codes.items() if value is not None})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__signature__ = inspect.Signature([*parameters, *generated])  # type: ignore[attr-defined]
        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        return command

    return decorate


def _filter_help(info: CodeInfo) -> str:
    values = f" One of: {', '.join(info.values)}." if info.values else ""
    ranges = " Ranges: LOW..HIGH, >=LOW." if info.numeric else ""
    return info.meaning + values + ranges


def _value_help(info: CodeInfo) -> str:
    values = f" One of: {', '.join(info.values)}." if info.values else ""
    return info.meaning + values + (" Separate several by semicolons." if info.several else "")


filtered = _with_codes("Filters", _filter_help)
valued = _with_codes("Codes", _value_help)


def _open(db: str | None) -> Catalog:
    from securitynet.catalog import open as open_catalog

    return open_catalog(db)


@app.command()
def collect(
    names: Annotated[list[str] | None, typer.Argument(metavar="[COLLECTOR]...", help="Which collectors to run.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All collectors that need no network.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="huggingface: most models in this run.")] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Harvest entries from installed model libraries (timm, torchvision, pytorchcv, robustbench) and the Hub.

    No weights are downloaded. Running it again brings entries up to date and keeps what people corrected.

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
    with _open(db) as catalog:
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
        listed = [{"collector": r.collector, "source": r.source, "added": r.entries.added, "changed": r.entries.changed,
                   "unchanged": r.entries.unchanged, "kept": r.entries.kept, "linked": r.linked} for r in reports]  # fmt: skip
        console.print_json({"collectors": listed, "total": total, "tasks": tasks})
        return
    for r in reports:
        e = r.entries
        kept = f", {e.kept} corrections kept" if e.kept else ""
        console.stdout.print(f"{r.source}: {e.added} added, {e.changed} changed, {e.unchanged} as before, {r.linked} duplicates linked{kept}")
    listed_tasks = ", ".join(f"{count:,} {task}" for task, count in tasks.items())
    console.stdout.print(f"The catalog holds {total:,} models, duplicates counted once: {listed_tasks}.", soft_wrap=True)


@app.command("import")
def import_(
    location: Annotated[str, typer.Argument(help="File or URL: .md, .csv, .jsonl or .parquet.")],
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if a row is bad.")] = False,
    source: Annotated[str | None, typer.Option("--source-name", help="What to name as the source.", show_default=False)] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Read entries from a published table. Bad rows are named with their line and left out.

    Example: securitynet catalog import securitynet-database.md
    """
    with _open(db) as catalog:
        report = catalog.import_table(location, strict=strict, source=source)
    for problem in [*report.problems, *report.warnings]:
        console.stderr.print(str(problem), markup=False, soft_wrap=True)
    e, p = report.entries, report.papers
    if json:
        console.print_json(
            {
                "entries": {"added": e.added, "changed": e.changed, "unchanged": e.unchanged, "measurements": e.measurements},
                "papers": {"added": p.added, "changed": p.changed, "unchanged": p.unchanged},
                "by_purpose": report.by_purpose,
                "linked": report.linked,
                "problems": [{"line": item.line, "reason": item.reason} for item in report.problems],
                "warnings": [{"line": item.line, "reason": item.reason} for item in report.warnings],
            }
        )
        return
    purposes = ", ".join(f"{count} {purpose}" for purpose, count in report.by_purpose.items())
    console.stdout.print(f"{e.total} models ({purposes}): {e.added} added, {e.changed} changed, {e.unchanged} as before")
    if p.total:
        console.stdout.print(f"{p.total} papers: {p.added} added, {p.changed} changed, {p.unchanged} as before")
    console.stdout.print(f"{e.measurements} measured values stored, {report.linked} duplicates linked, {len(report.problems)} bad rows")


@app.command()
@valued
def add(
    codes: dict[str, str],
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Ask for each code.")] = False,
    file: Annotated[Path | None, typer.Option("--file", help="Entries from a .csv, .jsonl or .parquet file.", show_default=False)] = None,
    note: Note = None,
    db: Db = None,
) -> None:
    """Add one entry by its codes, by answering questions, or several from a file.

    Example: securitynet catalog add --name my-model --dataset CIFAR-10 --architecture resnet20 --reference hf:me/my-model
    """
    with _open(db) as catalog:
        if file is not None:
            report = catalog.import_table(file)
            for problem in report.problems:
                console.stderr.print(str(problem), markup=False, soft_wrap=True)
            console.stdout.print(f"{report.entries.added} added, {report.entries.changed} changed, {len(report.problems)} bad rows")
            return
        entry = catalog.add(_asked(codes) if interactive else codes, note=note)
    console.stdout.print(f"{entry.id}  {entry.key}", soft_wrap=True)


@app.command()
@valued
def edit(
    identifier: Identifier,
    codes: dict[str, str],
    clear: Annotated[list[str] | None, typer.Option("--clear", metavar="CODE", help="Say that a code is not known.")] = None,
    same_as: Annotated[str | None, typer.Option("--same-as", metavar="ENTRY", help="Another entry stands for it.", show_default=False)] = None,
    no_duplicate: Annotated[bool, typer.Option("--no-duplicate", help="It is no duplicate.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take it out of searches; its history stays.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Put it back.")] = False,
    note: Note = None,
    db: Db = None,
) -> None:
    """Correct an entry. What a person corrects, later collections keep; the state before stays readable.

    Example: securitynet catalog edit pytorchcv:resnet20_cifar10 --license MIT --note "asked the author"
    """
    with _open(db) as catalog:
        changes = {**codes, **dict.fromkeys(clear or (), "")}
        if changes:
            catalog.edit(identifier, changes, note=note)
        if same_as or no_duplicate:
            catalog.link(identifier, same_as, note=note)
        if withdraw or restore:
            catalog.withdraw(identifier, note=note or "", restore=restore)
        states = catalog.history(identifier)
    for name, (before, after) in states[-1].differences.items() if len(states) > 1 else ():
        console.stdout.print(f"{name}: {before} -> {after}", markup=False, soft_wrap=True)


@app.command()
@filtered
def search(
    codes: dict[str, str],
    text: Words = None,
    sort: Annotated[str | None, typer.Option("--sort", metavar="CODE", help="Sort by; -CODE: descending.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most entries to print.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Go on after a page (what it printed).", show_default=False)] = None,
    count: Annotated[bool, typer.Option("--count", help="Print how many match, and nothing else.")] = False,
    duplicates: Duplicates = False,
    output: Annotated[str, typer.Option("--output", help="table, json or csv.")] = "table",
    db: Db = None,
    json: Json = False,
) -> None:
    """Find entries by words and codes; one page at a time.

    Filters: CIFAR-10,SVHN (any of), 2016..2020, >=0.9, '!VGG' (not), none or any (whether it is known).

    Example: securitynet catalog search resnet --dataset CIFAR-10 --claimed-accuracy '>=0.9' --sort -claimed_accuracy
    """
    output = "json" if json else output
    if output not in ("table", "json", "csv"):
        raise ConfigurationError(f"There is no output {output!r}.", hint="Choose table, json or csv.")
    with _open(db) as catalog:
        query = catalog.query(" ".join(text or ()), filters=codes, sort=sort, duplicates=duplicates)
        if count:
            number = query.count()
            console.print_json(number) if output == "json" else console.stdout.print(str(number))
            return
        page = query.page(limit, after)
    records = [{"id": entry.id, **entry.known()} for entry in page.entries]
    if output == "json":
        console.print_json({"entries": records, "after": page.after})
    elif output == "csv":
        from securitynet.catalog.export import as_csv

        typer.echo(as_csv([{**record, "measurements": []} for record in records]), nl=False)
    else:
        _print_table(_COLUMNS, [[record.get(name) for name in _COLUMNS] for record in records])
    if page.after and output != "json":
        console.stderr.print(f"More: --after {page.after}", soft_wrap=True)


@app.command()
def show(
    identifier: Identifier,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="As it was at a time (2026-03-31).", show_default=False)] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Show all that is known about one entry, where each value comes from, and what was measured on it."""
    from securitynet.catalog.history import state_at

    with _open(db) as catalog:
        details = catalog.details(identifier)
        past = state_at(catalog.history(identifier), at) if at else None
    if at and past is None:
        raise ConfigurationError(f"{details.entry.key} was not there at {at}.", hint="See `securitynet catalog history`.")
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
    rows = [[name, _text(value), sources.get(name, "")] for name, value in entry.known().items()]
    _print_table(("code", entry.id, "source"), rows)
    if measured:
        _print_table(("measured", "value", "by", "source"), [[m.name, m.value, m.measured_by, m.source] for m in measured])
    for key, rule in details.duplicates.items():
        console.stdout.print(f"the same weights: {key} (by {rule})", markup=False, soft_wrap=True)
    if details.duplicate_of:
        console.stdout.print(f"a duplicate of {details.duplicate_of}")
    if details.withdrawn:
        console.stdout.print("withdrawn")


@app.command()
def history(identifier: Identifier, db: Db = None, json: Json = False) -> None:
    """Show every change of an entry: when, by whom, from which source, and what it changed."""
    with _open(db) as catalog:
        states = catalog.history(identifier)
    if json:
        names = ("version", "time", "kind", "source", "actor", "note", "differences", "withdrawn", "duplicate_of")
        console.print_json([{name: getattr(state, name) for name in names} for state in states])
        return
    for state in states:
        console.stdout.print(f"[bold]{state.version}[/]  {state.time}  {state.kind} by {state.actor}, from {state.source}"
                             + (f": {state.note}" if state.note else ""), soft_wrap=True)  # fmt: skip
        for name, (before, after) in state.differences.items() if state.version > 1 else ():
            console.stdout.print(f"    {name}: {_text(before)} -> {_text(after)}", markup=False, soft_wrap=True)


@app.command()
@filtered
def stats(
    codes: dict[str, str],
    text: Words = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Most values of each code to print.")] = 10,
    db: Db = None,
    json: Json = False,
) -> None:
    """Count entries by year, country, venue, venue type, dataset and model type, by purpose (the paper's Figure 1)."""
    from securitynet.catalog.stats import FIGURE_1, statistics

    with _open(db) as catalog:
        found = statistics(catalog.to_frame(catalog.query(" ".join(text or ()), filters=codes)))
    if json:
        counts = {name: table.to_dict("records") for name, table in found.counts.items()}
        console.print_json({"total": found.total, "purposes": found.purposes, "tasks": found.tasks, "counts": counts,
                            "distinct": found.distinct, "known": found.known})  # fmt: skip
        return
    purposes = ", ".join(f"{count:,} {purpose}" for purpose, count in found.purposes.items())
    tasks = ", ".join(f"{count:,} {task}" for task, count in found.tasks.items())
    console.stdout.print(f"{found.total:,} models: {purposes or 'none'}; {tasks}", soft_wrap=True)
    for name, heading in FIGURE_1.items():
        table = found.counts[name]
        console.stdout.print(f"\n[bold]{heading}[/]: {found.distinct[name]} distinct, known for {found.known[name]:.1%}")
        shown = table if name == "year" else table.head(top)
        _print_table(tuple(map(str, table.columns)), shown.to_numpy().tolist())


@app.command()
@filtered
def select(
    count: Annotated[int, typer.Argument(min=1, help="How many models to choose.")],
    codes: dict[str, str],
    text: Annotated[str, typer.Option("--text", help="Words that must all occur.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same models.")] = 0,
    facet: Annotated[list[str] | None, typer.Option("--cover", metavar="CODE", help="What to cover (default: family, dataset, year, accuracy decile).", show_default=False)] = None,
    any_model: Annotated[bool, typer.Option("--any", help="Also models that cannot be loaded, or are no classifiers.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the model list here (TOML).", show_default=False)] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Choose models that cover the range as widely as possible, and say what is covered and what is not.

    The objective is the mean share of values covered over the facets; it is maximised greedily. The output is a study
    file's model list.

    Example: securitynet catalog select 12 --dataset CIFAR-10,CIFAR-100 --seed 7 --out models.toml
    """
    from securitynet.catalog.selection import FACETS, select as choose
    from securitynet.files import atomic_write

    filters = {} if any_model else {"reference": "any", "head": "classifier", "task_type": "classification"}
    with _open(db) as catalog:
        table = catalog.to_frame(catalog.query(text, filters={**filters, **codes}))
    found = choose(table, count, seed=seed, facets=tuple(facet) if facet else FACETS)
    if out is not None:
        with atomic_write(out) as stream:
            stream.write(found.as_toml().encode())
    if json:
        models = [{name: row[name] for name in ("id", "reference", "name", "dataset", "family")} for row in found.chosen.to_dict("records")]
        console.print_json({"models": models, "objective": found.objective, "covered": found.covered, "missing": found.missing,
                            "unknown": found.unknown, "candidates": found.candidates, "seed": found.seed})  # fmt: skip
        return
    if out is None:
        typer.echo(found.as_toml())
    console.stderr.print(f"{len(found.chosen)} of {found.candidates:,} candidates, coverage {found.objective:.3f}, seed {seed}")
    for name, covered in found.covered.items():
        missing = found.missing[name]
        rest = f"; not covered: {', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}" if missing else ""
        unknown = f"; unknown for {found.unknown[name]}" if found.unknown[name] else ""
        console.stderr.print(f"  {name}: {len(covered)} of {len(covered) + len(missing)}{rest}{unknown}", markup=False, soft_wrap=True)


@app.command()
@filtered
def compare(
    codes: dict[str, str],
    any_architecture: Annotated[bool, typer.Option("--any-architecture", help="Benchmark models of all families.")] = False,
    db: Db = None,
    json: Json = False,
) -> None:
    """Compare benchmark with security models of like architecture and dataset (the paper's Figures 2 and 3).

    Accuracy, overfitting, and the clusters that a Gaussian mixture finds among the security models.
    """
    from securitynet.catalog.compare import compare as run

    with _open(db) as catalog:
        found = run(catalog.to_frame(catalog.query(filters=codes)), any_architecture=any_architecture)
    if json:
        console.print_json([_plain(item) for item in found])
        return
    rows = []
    for item in found:
        for measure, groups in (("test accuracy", item.accuracy), ("overfitting", item.overfitting)):
            rows += [[item.dataset, measure, purpose, g.n, g.mean, g.std, g.low, g.high] for purpose, g in groups.items()]
        if len(item.clusters) > 1:
            rows += [[item.dataset, "test accuracy", f"security, cluster {n}", g.n, g.mean, g.std, g.low, g.high]
                     for n, g in enumerate(item.clusters, start=1)]  # fmt: skip
    if not rows:
        raise ConfigurationError("No dataset has both benchmark and security models of known accuracy.", hint="Import the published tables first.")
    _print_table(("dataset", "measure", "models", "n", "mean", "std", "low", "high"), rows)


@app.command()
def agreement(
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Annotations: CSV with a column `entry` and codes; one file a coder, or a column `coder`.")] = None,
    show_disagreements: Annotated[bool, typer.Option("--disagreements", help="List values on which coders differ.")] = False,
    resolve: Annotated[bool, typer.Option("--resolve", help="Write what they agree on, or the majority says, into the entries.")] = False,
    decide: Annotated[list[str] | None, typer.Option("--decide", metavar="ENTRY:CODE=VALUE", help="Decide by hand (with --resolve).")] = None,
    db: Db = None,
    json: Json = False,
) -> None:
    """Import annotations by several people; report Cohen's or Fleiss' kappa and Krippendorff's alpha per code.

    Example: securitynet catalog agreement alice.csv bob.csv --disagreements
    """
    from securitynet.catalog import agreement as library
    from securitynet.catalog.importers.annotations import read_annotations

    with _open(db) as catalog:
        for path in files or ():
            for coder, rows in read_annotations(path).items():
                new = library.annotate(catalog, coder, rows)
                console.stderr.print(f"{path.name}: {new} new values by {coder}", markup=False)
        units = library.read_units(catalog)
        found = library.agreement(units)
        open_ = library.disagreements(units)
        changed = None
        if resolve or decide:
            changed, open_ = library.resolve(catalog, library.decisions(catalog, decide or ()))
    if json:
        console.print_json({"agreement": [_plain(item) for item in found], "disagreements": [_plain(item) for item in open_],
                            "entries_changed": changed})  # fmt: skip
        return
    columns = ("code", "coders", "units", "percent", "cohen", "fleiss", "krippendorff")
    _print_table(columns, [[a.code, len(a.coders), a.units, a.percent, a.cohen, a.fleiss, a.krippendorff] for a in found])
    if show_disagreements or changed is not None:
        _print_table(("entry", "code", "values", "majority"), [
            [d.entry, d.code, ", ".join(f"{coder}: {_text(value)}" for coder, value in d.values.items()), d.majority] for d in open_
        ])  # fmt: skip
    if changed is not None:
        console.stdout.print(f"{changed} entries changed, {len(open_)} disagreements left")


@app.command()
@filtered
def validate(
    codes: dict[str, str],
    text: Words = None,
    online: Annotated[bool, typer.Option("--online", help="Ask every linked server whether the page is there.")] = False,
    db: Db = None,
    json: Json = False,
) -> None:
    """Look for entries that cannot be right. Exit code 1 if there are errors (warnings are only printed)."""
    from securitynet.catalog.validation import validate as run

    with _open(db) as catalog:
        query = catalog.query(" ".join(text or ()), filters=codes, duplicates=True)
        found = list(run(catalog.database, query, online=online))
    errors = sum(finding.severity == "error" for finding in found)
    if json:
        console.print_json([_plain(finding) for finding in found])
    else:
        for finding in found:
            console.stdout.print(f"{finding.severity}: {finding.entry}: {finding.code}: {finding.message}", markup=False, soft_wrap=True)
        console.stderr.print(f"{errors} errors, {len(found) - errors} warnings")
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

    with _open(db) as catalog:
        number = run(catalog.database, catalog.query(text, filters=codes, duplicates=duplicates), file)
    console.stderr.print(f"{number:,} entries written to {file}", markup=False, soft_wrap=True)


@app.command("codebook")
def codebook_(json: Json = False) -> None:
    """Print the codebook: every code with its type, allowed values and meaning."""
    console.print_json(as_json()) if json else typer.echo(as_markdown())


@app.command()
def papers(db: Db = None, json: Json = False) -> None:
    """List imported papers that publish weights."""
    with _open(db) as catalog:
        rows = catalog.papers()
    if json:
        console.print_json(rows)
    else:
        columns = ("title", "venue", "year", "weights_link", "note")
        _print_table(columns, [[row[name] for name in columns] for row in rows])


def _totals(catalog: Catalog) -> tuple[int, dict[str, int]]:
    from securitynet.catalog.codebook import code

    tasks = {task: catalog.query(task_type=task).count() for task in code("task_type").values}
    return catalog.query().count(), {task: count for task, count in tasks.items() if count}


def _asked(codes: dict[str, str]) -> dict[str, str]:
    """Ask for every code that was not given; a wrong answer is explained and asked for again."""
    answers = dict(codes)
    for info in codebook().values():
        if info.name in answers or info.name == "key":
            continue
        while True:
            choices = f" [{'|'.join(info.values)}]" if info.values else ""
            answer = typer.prompt(f"{info.name}{choices} ({info.meaning})", default="", show_default=False, err=True)
            try:
                info.parse(answer)
            except Exception as error:
                from securitynet.errors import SecurityNetError

                if not isinstance(error, SecurityNetError):
                    raise
                console.stderr.print(str(error), markup=False, soft_wrap=True)
                continue
            if answer.strip() or not info.required or info.name == "source":
                break
        if answer.strip():
            answers[info.name] = answer
    return answers


def _print_table(columns: tuple[str, ...], rows: list[list[Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(escape(_text(cell)) for cell in row))
    # A pipe has no width: nothing need be cut there.
    console.stdout.print(table, width=None if console.stdout.is_terminal else 250)


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _plain(item: Any) -> Any:
    """A dataclass as JSON types; NaN, which JSON lacks, as null."""
    from dataclasses import asdict

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and value != value else value

    return clean(asdict(item))


if __name__ == "__main__":
    import sys

    from securitynet.cli import main as entry_point

    if not any(group.name == "catalog" for group in entry_point.app.registered_groups):
        entry_point.app.add_typer(app, name="catalog")
    sys.argv.insert(1, "catalog")
    entry_point.main()
