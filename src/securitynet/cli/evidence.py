"""`securitynet verify`, `sign` and `export`: evidence about a model that strangers can check."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from securitynet.cli import console

if TYPE_CHECKING:
    from securitynet.assessments.comparison import StoredResult
    from securitynet.assessments.verification import Reproduction

NOT_REPRODUCED = 4
PASSWORD_VARIABLE = "SECURITYNET_KEY_PASSWORD"

Result = Annotated[Path, typer.Argument(help="Folder of an assessment, or its result.json.", show_default=False)]
Redact = Annotated[bool, typer.Option("--redact", help="Leave out folders, and the names of user and machine.")]


def sign(
    result: Result,
    key: Annotated[Path, typer.Option(help="Private Ed25519 key, as a PEM file (PKCS#8).", show_default=False)],
    weights: Annotated[Path | None, typer.Option(help="The assessed weights. Default: as in the result.")] = None,
    redact: Redact = False,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: result.intoto.json beside it.")] = None,
) -> None:
    """Sign a result: an in-toto statement about the weights, with the digests of all trial files.

    Whoever has the public key can check that nothing was changed since, with `securitynet verify --key`. The password
    of an encrypted key is asked for, or read from the variable SECURITYNET_KEY_PASSWORD.

    Example: openssl genpkey -algorithm ed25519 -out key.pem; securitynet sign report/ --key key.pem
    """
    from securitynet.assessments.comparison import read_result
    from securitynet.files import write_json
    from securitynet.results import signing
    from securitynet.results.statement import make_statement

    stored = read_result(result)
    stated = stored.document.settings.get("weights")
    file = weights or (Path(stated) if isinstance(stated, str) and Path(stated).is_file() else None)
    statement = make_statement(stored.document, stored.store, file, redacted=redact)
    private = signing.read_private_key(key, ask_password(key))
    path = out or stored.folder / signing.ENVELOPE_FILE
    write_json(path, signing.sign_statement(statement, private))
    console.stdout.print(
        f"Signed by {signing.identify_key(private.public_key())[:16]}: {path}", soft_wrap=True, markup=False
    )


def verify(
    result: Result,
    key: Annotated[Path | None, typer.Option(help="Public key of the signer, as a PEM file.")] = None,
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the trials that are run again; 0: none.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed by which the share is drawn.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="The model, where the result's reference is of no use here.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The weights, where they lie elsewhere.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset, where it lies elsewhere.")] = None,
    members: Annotated[Path | None, typer.Option(help="The list of members, where it lies elsewhere.")] = None,
    non_members: Annotated[Path | None, typer.Option(help="The list of non-members, likewise.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder with the dataset's files.")] = None,
    db: Annotated[str | None, typer.Option(help="The catalog's database, for catalog:ENTRY.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code in the model's file (TorchScript).")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. Default: as in the result.")] = None,
    counter_sign: Annotated[
        Path | None, typer.Option(help="Private key with which the reproduction of a signed result is signed.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON to stdout.")] = False,
) -> None:
    """Check a result: its signature, its files, and its numbers, by running its trials again.

    Trials run from the model and the data at hand; nothing computed before is used. A measurement is reproduced if it
    is the same, or if each value lies in the other's interval. Results may come from anybody: code and servers that
    one names are used only if you give them yourself.

    Example: securitynet verify report/ --key signer.pub --sample 0.2

    Exit codes: 0 all that was checked holds, 1 something is wrong with the input, 4 something does not hold: a number,
    a signature, or the model and the data, which are not those of the result.
    """
    from securitynet.assessments import verification
    from securitynet.assessments.comparison import read_result
    from securitynet.reports.grades import find_wrong_verdicts
    from securitynet.results.signing import SignatureError
    from securitynet.results.statement import find_contradictions

    stored = read_result(result)
    try:
        changes_since, payload = check_files(stored, key)
    except SignatureError as error:
        console.print_error(error.message, error.hint)
        raise typer.Exit(NOT_REPRODUCED) from None
    broken = [
        *changes_since,
        *find_contradictions(stored.document, stored.store),
        *find_wrong_verdicts(stored.document),
    ]
    for sentence in broken:
        console.stderr.print(f"[bold red]{console.escape(sentence)}[/]", soft_wrap=True)
    checks: list[Reproduction] = []
    names: list[str] = []
    promised = False
    changes: dict[str, Any] = {
        "model": model, "weights": weights, "dataset": dataset, "members": members, "non_members": non_members,
        "data_root": data_root,
    }  # fmt: skip
    given = any(value is not None for value in changes.values())
    changes |= {"db": db, "device": device, "trust": trust or None}
    try:
        if sample > 0:
            names = verification.draw_trials(stored.document, sample, seed)
            with console.show_progress() as progress:
                checks, promised = verification.reproduce(stored.document, names, changes, progress)
        elif given:
            verification.check_given(stored.document, changes)
    except verification.OtherIdentity as error:
        console.print_error(error.message, error.hint)
        raise typer.Exit(NOT_REPRODUCED) from None
    holds = not broken and all(check.holds for check in checks)
    if counter_sign is not None:
        counter_sign_result(stored, payload, checks, counter_sign, holds=holds)
    if json:
        rows = [{"name": c.name, "stated": c.stated.value, "now": c.now.value if c.now else None, "outcome": c.outcome}
                for c in checks]  # fmt: skip
        console.print_json({"holds": holds, "files": broken, "measurements": rows})
    else:
        show_reproductions(checks, promised=promised)
        finished = sum(trial.status == "ok" for trial in stored.document.trials)
        again = len(names)
        console.stdout.print(
            f"[green]Everything that was checked holds[/] ({again} of {finished} trials were run again)."
            if holds
            else "[bold red]Something does not hold.[/]"
        )
    raise typer.Exit(0 if holds else NOT_REPRODUCED)


def export(
    result: Result,
    to: Annotated[
        str | None,
        typer.Option(
            "--as", help="cyclonedx, model-card, atlas, sarif, eval-result, csv or parquet.", show_default=False
        ),
    ] = None,
    redact: Redact = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: a name of its own beside the result.")
    ] = None,
    mlflow: Annotated[str | None, typer.Option(metavar="URI", help="Log it to MLflow at this tracking URI.")] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Log it to Weights & Biases: PROJECT or ENTITY/PROJECT.")
    ] = None,
) -> None:
    """Write a result in a form that other tools read, or log it to an experiment tracker.

    The forms are an ML-BOM, a model card, evaluation results, an ATLAS layer, SARIF, and tables.

    Example: securitynet export report/ --as cyclonedx --redact --out bom.json
    """
    from securitynet.assessments.comparison import read_result
    from securitynet.errors import ConfigurationError, UnknownName
    from securitynet.files import write_atomically
    from securitynet.reports.grades import add_grades
    from securitynet.results.exports import FORMATS, render
    from securitynet.results.redaction import redact_document
    from securitynet.results.trackers import check_trackers, log_result

    if to is None and mlflow is None and wandb is None:
        raise ConfigurationError("Nothing says where to.", hint="Give --as FORMAT, --mlflow URI or --wandb PROJECT.")
    if to is not None and to not in FORMATS:
        raise UnknownName("format", to, FORMATS)
    stored = read_result(result)
    document = stored.document if stored.document.grades else add_grades(stored.document)
    document = redact_document(document) if redact else document
    check_trackers(mlflow, wandb)
    if to is not None:
        path = out or stored.folder / FORMATS[to].file
        with write_atomically(path) as stream:
            stream.write(render(document, to))
        console.stdout.print(f"Written: {path}", soft_wrap=True, markup=False)
    if mlflow is not None or wandb is not None:
        # The files on the disk may name folders that a redacted result leaves out.
        log_result(document, stored.folder, mlflow, wandb, () if redact else ("result.json", "report.html"))
        console.stdout.print("Logged.")


def check_files(stored: StoredResult, key: Path | None) -> tuple[list[str], bytes | None]:
    """What differs from the signed statement beside a result, and its payload; None without a statement.

    Raises:
        SignatureError: If a key is given, and has not signed it, or if there is no statement.
    """
    from securitynet.results import signing
    from securitynet.results.statement import find_changes
    from securitynet.untrusted import parse_json, read_bytes

    path = stored.folder / signing.ENVELOPE_FILE
    if not path.is_file():
        if key is not None:
            raise signing.SignatureError("The result is not signed.", hint=f"There is no {path.name} beside it.")
        return [], None
    try:
        envelope = parse_json(read_bytes(path))
    except ValueError as error:
        raise signing.SignatureError(f"{path.name} is not a signed statement.") from error
    statement, payload = signing.open_envelope(envelope, signing.read_public_key(key) if key is not None else None)
    if key is None:
        console.stderr.print("[yellow]The result is signed; give the signer's key with --key to check by whom.[/]")
    return find_changes(statement, stored.document, stored.store), payload


def counter_sign_result(
    stored: StoredResult, payload: bytes | None, checks: list[Reproduction], key: Path, *, holds: bool
) -> None:
    """Sign that a signed result was reproduced; nothing is signed unless everything holds.

    Raises:
        ConfigurationError: If the result is not signed, or nothing was run again.
    """
    from securitynet.errors import ConfigurationError
    from securitynet.files import write_json
    from securitynet.results import signing
    from securitynet.results.statement import make_reproduction

    if payload is None or not checks:
        raise ConfigurationError(
            "There is nothing to counter-sign.", hint="Only a signed result whose trials were run again can be."
        )
    if not holds:
        return
    statement = make_reproduction(payload, [check.name for check in checks], [])
    private = signing.read_private_key(key, ask_password(key))
    write_json(stored.folder / signing.REPRODUCTION_FILE, signing.sign_statement(statement, private))


def ask_password(key: Path) -> str | None:
    """The password of an encrypted key: from the environment, or from the terminal; None for other keys."""
    from securitynet.errors import ConfigurationError
    from securitynet.results.signing import MAX_KEY
    from securitynet.untrusted import read_bytes

    try:
        encrypted = b"ENCRYPTED" in read_bytes(key, MAX_KEY)
    except OSError as error:
        raise ConfigurationError(f"The key can't be read: {key}.", hint="Name a PEM file.") from error
    if not encrypted:
        return None
    stated = os.environ.get(PASSWORD_VARIABLE)
    if stated is None and sys.stdin.isatty():
        return str(typer.prompt(f"Password of {key.name}", hide_input=True, err=True))
    return stated


def show_reproductions(checks: list[Reproduction], *, promised: bool) -> None:
    """Print how many measurements were reproduced, and those that were not; with ``-v`` all."""
    from rich.table import Table

    if not checks:
        return
    identical = sum(check.outcome == "identical" for check in checks)
    inside = sum(check.outcome == "within the intervals" for check in checks)
    console.stdout.print(
        f"Of {len(checks)} measurements, {identical} are identical, {inside} agree within their intervals, and "
        f"{len(checks) - identical - inside} were not reproduced."
    )
    if promised and inside:
        console.stdout.print(
            "[yellow]Versions, device and threads are those of the result, which promises the same numbers.[/]"
        )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("measurement", "stated", "now", "outcome"):
        table.add_column(heading)
    for check in checks:
        if not check.holds or console.is_verbose() or (promised and check.outcome != "identical"):
            values = [
                f"{m.value:.4f} ({m.low:.4f} to {m.high:.4f})" if m is not None and m.value is not None else "–"
                for m in (check.stated, check.now)
            ]
            table.add_row(check.name, *values, check.outcome)
    if table.row_count:
        console.stdout.print(table)
