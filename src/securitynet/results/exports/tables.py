"""The measurements as a table: CSV for a spreadsheet, Parquet for data frames."""

from __future__ import annotations

import csv
import io
from typing import Any

from securitynet.results.document import ResultDocument

COLUMNS = (
    "model", "checksum", "dataset", "created", "name", "trial", "value", "low", "high", "level", "n", "direction",
    "method", "note", "grade",
)  # fmt: skip
"""``grade`` is that of the family, beside the measurement that it follows from."""


def tabulate_measurements(document: ResultDocument) -> list[dict[str, Any]]:
    """One row for each measurement, with `COLUMNS`."""
    trials = sorted((trial.name for trial in document.trials), key=len, reverse=True)
    grades = {grade.measurement: grade.grade for grade in document.grades if grade.measurement}
    return [
        {
            "model": document.target.reference,
            "checksum": document.target.checksum,
            "dataset": document.dataset.reference,
            "created": document.created,
            "name": one.name,
            "trial": next((trial for trial in trials if one.name.startswith(f"{trial}.")), ""),
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "level": one.level,
            "n": one.n,
            "direction": one.direction.value,
            "method": one.method,
            "note": one.note or "",
            "grade": grades.get(one.name, ""),
        }
        for one in document.measurements
    ]


def render_csv(document: ResultDocument) -> bytes:
    """CSV in UTF-8. Texts that a spreadsheet would compute as a formula begin with an apostrophe."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in tabulate_measurements(document):
        writer.writerow({name: _defuse(value) if isinstance(value, str) else value for name, value in row.items()})
    return stream.getvalue().encode("utf-8")


def render_parquet(document: ResultDocument) -> bytes:
    """Parquet; values are doubles, and missing where nothing can be resolved."""
    import pyarrow
    import pyarrow.parquet

    rows = tabulate_measurements(document)
    kinds = dict.fromkeys(("value", "low", "high", "level"), pyarrow.float64()) | {"n": pyarrow.int64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), sink)
    return sink.getvalue()


def _defuse(text: str) -> str:
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
