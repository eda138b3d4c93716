"""CycloneDX 1.7: an ML-BOM with the model's card, its measurements among the performance metrics."""

from __future__ import annotations

import uuid
from typing import Any

from securitynet.records import FAMILIES, Measurement
from securitynet.results.document import ResultDocument
from securitynet.results.exports.texts import describe_grade, list_limits, split_name, write_json_bytes

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:securitynet:assessment:1")


def render(document: ResultDocument) -> bytes:
    """The ML-BOM of one assessed model, as JSON."""
    target, dataset = document.target, document.dataset
    version = document.environment.get("securitynet", "")
    serial = uuid.uuid5(_NAMESPACE, f"{target.checksum} {dataset.fingerprint} {document.created}")
    card: dict[str, Any] = {
        "modelParameters": {
            "task": "image-classification",
            "datasets": [{"type": "dataset", "name": dataset.reference, "contents": {}}],
            "inputs": [{"format": "image"}],
            "outputs": [{"format": f"scores of {target.num_classes} classes"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [make_metric(m) for m in document.measurements if m.value is not None]
        },
        "considerations": {
            "technicalLimitations": list_limits(document),
            "ethicalConsiderations": [
                {"name": describe_grade(document, grade)}
                for grade in document.grades
                if grade.grade in ("high", "moderate", "slight")
            ],
        },
    }
    card["considerations"] = {name: value for name, value in card["considerations"].items() if value}
    component = {
        "type": "machine-learning-model",
        "bom-ref": "assessed-model",
        "name": target.reference,
        "modelCard": card,
        "properties": [
            {"name": "securitynet:target-checksum", "value": target.checksum},
            {"name": "securitynet:dataset-fingerprint", "value": dataset.fingerprint},
            *({"name": f"securitynet:grade:{grade.family}", "value": grade.grade} for grade in document.grades),
        ],
    }
    return write_json_bytes(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.7",
            "serialNumber": f"urn:uuid:{serial}",
            "version": 1,
            "metadata": {
                "timestamp": document.created,
                "tools": {"components": [{"type": "application", "name": "securitynet", "version": version}]},
            },
            "components": [component],
        }
    )


def make_metric(measurement: Measurement) -> dict[str, Any]:
    """A performance metric; its slice is the trial, or the part of the data, that it is about."""
    owner, measure = split_name(measurement.name)
    family, _, trial = owner.partition(".")
    about = {"train_accuracy": "members", "test_accuracy": "non-members"}.get(measure) if family == "target" else None
    metric: dict[str, Any] = {
        "type": measurement.name,
        "value": f"{measurement.value:.6g}",
        "confidenceInterval": {"lowerBound": f"{measurement.low:.6g}", "upperBound": f"{measurement.high:.6g}"},
    }
    part = about or (f"{FAMILIES[family]}: {trial}" if family in FAMILIES and trial else None)
    return {**metric, "slice": part} if part else metric
