"""`securitynet exposure`: which records of a trained model are exposed, how surely, and whether removing them helps."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securitynet.assessments.exposure_config import ExposureConfig
from securitynet.cli import console
from securitynet.cli.options import add_config_options

if TYPE_CHECKING:
    from securitynet.assessments.exposure_result import RecordExposure, RecordsExposure


@add_config_options(ExposureConfig, positional=("weights",))
def exposure(
    config: ExposureConfig,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON to stdout.")] = False,
) -> None:
    """Measure the exposure of single records and groups over many models, and try removing records.

    Example: securitynet exposure model.safetensors --shadows 32 --retrain-without 17,45 --out exposure
    """
    from securitynet.assessments.exposure import measure_exposure
    from securitynet.files import check_writable, write_json

    if config.out is not None:
        check_writable(config.out)
    with console.show_progress() as report_progress:
        result, records = measure_exposure(config, report_progress)
    if config.out is not None:
        write_json(config.out / "exposure.json", result.model_dump(mode="json"))
        write_exposure_table(config.out / "exposure.csv", records)
    if json:
        console.print_json(result.model_dump(mode="json"))
    else:
        show_exposure(result)


def write_exposure_table(path: Path, records: Sequence[RecordExposure]) -> None:
    """Write the exposure of every member as CSV.

    Args:
        path: The file.
        records: One row each.
    """
    from securitynet.assessments.exposure_result import RecordExposure
    from securitynet.files import write_atomically

    text = io.StringIO()
    writer = csv.DictWriter(text, list(RecordExposure.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.model_dump(mode="json") for record in records)
    with write_atomically(path) as stream:
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def show_exposure(result: RecordsExposure) -> None:
    """Print sentences, and the members that are identified most often, on stdout."""
    for sentence in (*result.sentences, *result.notes):
        console.stdout.print(sentence, markup=False, soft_wrap=True)
    console.stdout.print("Most exposed members (identified as members; taken for members where they are none):")
    for record in result.most_exposed:
        console.stdout.print(
            f"  {record.record:>8}  {record.name}, {record.label}: {record.identified} of {record.member_of} "
            f"({record.low:.0%} to {record.high:.0%}); {record.accused} of {record.non_member_of}",
            markup=False,
            soft_wrap=True,
            highlight=False,
        )
