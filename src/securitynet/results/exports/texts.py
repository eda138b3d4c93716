"""What several exports write in the same way."""

from __future__ import annotations

import json
import re
from typing import Any

from securitynet.records import FAMILIES, Measurement
from securitynet.results.document import ResultDocument
from securitynet.results.grades import FamilyGrade

_MEASURE = re.compile(r"\.(?P<measure>[^.@]+(?:@[A-Za-z_-]+=.+)?)$")


def split_name(name: str) -> tuple[str, str]:
    """The trial (or ``target``) and the measure of a measurement's name; a measure may hold a number with a dot."""
    match = _MEASURE.search(name)
    return (name[: match.start()], match["measure"]) if match else ("", name)


def write_json_bytes(value: Any) -> bytes:
    """JSON text as bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def describe_measurement(measurement: Measurement) -> str:
    """Name, value and interval."""
    if measurement.value is None:
        return f"{measurement.name}: {measurement.note or 'not resolvable'}"
    return (
        f"{measurement.name} = {measurement.value:.4g} ({measurement.low:.4g} to {measurement.high:.4g}, "
        f"{measurement.level:.0%}, n = {measurement.n:,})"
    )


def describe_grade(document: ResultDocument, grade: FamilyGrade) -> str:
    """A family's grade, with the measurement behind it."""
    measurement = find_measurement(document, grade.measurement)
    behind = f": {describe_measurement(measurement)}" if measurement is not None else ""
    return f"{FAMILIES.get(grade.family, grade.family)}: {grade.grade}{behind}"


def find_measurement(document: ResultDocument, name: str | None) -> Measurement | None:
    """A measurement by its name."""
    return next((m for m in document.measurements if m.name == name), None)


def list_limits(document: ResultDocument) -> list[str]:
    """List what a reader must know before relying on the numbers."""
    sentences = []
    if document.dataset.membership == "assumed":
        sentences.append("Who was a member of the training set is assumed, not known.")
    if document.controls is not None and document.controls.blind is not None and document.controls.blind.differ:
        sentences.append("Members and non-members differ without the model; attacks on membership show little.")
    sentences += [
        check.note or f"Its {check.what} is {check.found}." for check in document.target.checks if not check.agrees
    ]
    absent = [FAMILIES[grade.family].lower() for grade in document.grades if grade.grade == "not assessed"]
    if absent:
        sentences.append(f"Not assessed: {', '.join(absent)}.")
    return sentences
