"""`securitynet report`: the report of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securitynet.cli import console


def report(
    study: Annotated[str, typer.Argument(help="Study file, or folder of its results.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; .pdf for a PDF. Default: report.html in the folder.")
    ] = None,
) -> None:
    """Write the report of a study, with findings, figures, all measurements, failures and limits, into one file.

    While a study is running, the report covers the trials that are finished.

    Example: securitynet report studies/ml-doctor-small.toml --out ml-doctor.html
    """
    from securitynet.errors import ConfigurationError
    from securitynet.reports.study import write_study_report
    from securitynet.studies.execution.run import find_results

    if out is not None and out.suffix.lower() not in (".html", ".pdf"):
        raise ConfigurationError(
            f"{out.name!r} is neither HTML nor PDF.", hint="Use a name that ends in .html or .pdf."
        )
    place = find_results(study)
    if place.root.folder is None:
        raise ConfigurationError(
            f"The results are at {place.root.name}, which is not a local folder.",
            hint="Copy them to a local folder first.",
        )
    path = write_study_report(place.root.folder, out)
    console.stdout.print(f"Report: {path}", soft_wrap=True, markup=False)
