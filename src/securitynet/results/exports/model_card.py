"""For the Hugging Face Hub: a section of a model card with its metadata, and a file of evaluation results.

Both are YAML; JSON is a part of YAML, and needs no quoting rules of its own.
"""

from __future__ import annotations

import json
from typing import Any

from securitynet.records import FAMILIES, Measurement
from securitynet.results.document import ResultDocument
from securitynet.results.exports.texts import find_measurement, list_limits

TASK = "image-classification"


def render(document: ResultDocument) -> bytes:
    """Markdown with the metadata ``model-index`` before it."""
    target, dataset = document.target, document.dataset
    metrics = [
        {"type": measurement.name, "value": measurement.value, "name": _name(measurement)}
        for measurement in _headline(document)
    ]
    index = [
        {
            "name": target.reference,
            "results": [
                {
                    "task": {"type": TASK},
                    "dataset": {"type": dataset.reference, "name": dataset.reference},
                    "metrics": metrics,
                }
            ],
        }
    ]
    lines = [
        "---",
        f"model-index: {json.dumps(index, ensure_ascii=True)}",
        "---",
        "",
        "## Privacy and security",
        "",
        f"Assessed on {document.created[:10]} by securitynet {document.environment.get('securitynet', '')}, with "
        f"{dataset.members:,} members of the training set ({dataset.membership}) and {dataset.non_members:,} "
        f"non-members of {_escape(dataset.reference)}.",
        "",
        "| risk | grade | number | interval |",
        "|---|---|--:|--:|",
    ]
    for grade in document.grades:
        measurement = find_measurement(document, grade.measurement)
        number, interval = "", ""
        if measurement is not None and measurement.value is not None:
            number = f"{_escape(measurement.name)} = {measurement.value:.4g}"
            interval = f"{measurement.low:.4g} to {measurement.high:.4g}"
        lines.append(f"| {FAMILIES.get(grade.family, grade.family)} | {grade.grade} | {number} | {interval} |")
    limits = list_limits(document)
    if limits:
        lines += ["", "Limits of these numbers:", "", *(f"- {_escape(limit)}" for limit in limits)]
    lines += ["", f"Target checksum: `{target.checksum}`. Dataset fingerprint: `{dataset.fingerprint}`."]
    return ("\n".join(lines) + "\n").encode("utf-8")


def render_eval_results(document: ResultDocument) -> bytes:
    """The evaluation results of a model's repository, as ``.eval_results`` holds them."""
    entries: list[dict[str, Any]] = [
        {
            "dataset": {"id": document.dataset.reference, "task_id": measurement.name},
            "value": measurement.value,
            "date": document.created,
            "notes": f"{measurement.level:.0%} interval {measurement.low:.6g} to {measurement.high:.6g}, "
            f"n = {measurement.n}, {measurement.method}; target {document.target.checksum[:16]}",
        }
        for measurement in document.measurements
        if measurement.value is not None
    ]
    return "".join(f"- {json.dumps(entry, ensure_ascii=True)}\n" for entry in entries).encode("utf-8")


def _headline(document: ResultDocument) -> list[Measurement]:
    """The accuracies, and the numbers behind the grades."""
    names = ["target.test_accuracy", *(grade.measurement for grade in document.grades if grade.measurement)]
    measurements = [find_measurement(document, name) for name in dict.fromkeys(names)]
    return [measurement for measurement in measurements if measurement is not None and measurement.value is not None]


def _name(measurement: Measurement) -> str:
    return f"{measurement.name}, {measurement.level:.0%} interval {measurement.low:.4g} to {measurement.high:.4g}"


def _escape(text: str) -> str:
    flat = " ".join(text.split())
    for character in "\\`*_[]<>|":
        flat = flat.replace(character, f"\\{character}")
    return flat
