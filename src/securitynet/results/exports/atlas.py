"""A layer for the MITRE ATLAS Navigator: the techniques that the trials stand for, scored by the grades."""

from __future__ import annotations

from typing import Any

from securitynet.results.document import ResultDocument
from securitynet.results.exports.texts import describe_grade, write_json_bytes
from securitynet.results.grades import Grade

TECHNIQUES: dict[str, tuple[str, ...]] = {
    "membership": ("AML.T0024.000",),
    "inversion": ("AML.T0024.001",),
    "stealing": ("AML.T0024.002",),
    "attribute": ("AML.T0024",),
    "evasion": ("AML.T0015", "AML.T0043"),
    "backdoor": ("AML.T0018", "AML.T0020"),
}
"""Family -> ids of ATLAS: infer training data membership; invert the model; extract it; exfiltrate by its outputs;
evade it, craft adversarial data; manipulate the model, poison training data."""

SURROGATE = "AML.T0005"
"""Create a proxy of the model: what stealing does, and evasion by transfer."""

SCORES: dict[Grade, int] = {"high": 100, "moderate": 66, "slight": 33, "none shown": 0}
"""Grades that are scores; undecided and not assessed are none."""


def render(document: ResultDocument) -> bytes:
    """The layer, as JSON."""
    return write_json_bytes(
        {
            "name": f"SecurityNet: {document.target.reference}",
            "versions": {"layer": "4.5", "navigator": "5.1.0"},
            "domain": "atlas-atlas",
            "description": f"Assessed on {document.dataset.reference}, {document.created[:10]}.",
            "techniques": list_techniques(document),
            "gradient": {"colors": ["#ffffff", "#a63a00"], "minValue": 0, "maxValue": 100},
        }
    )


def list_techniques(document: ResultDocument) -> list[dict[str, Any]]:
    """A technique for each id, with the grade as its score and its text as the comment."""
    techniques = []
    for grade in document.grades:
        for technique in TECHNIQUES.get(grade.family, ()):
            one: dict[str, Any] = {
                "techniqueID": technique,
                "comment": describe_grade(document, grade),
                "enabled": True,
            }
            if grade.grade in SCORES:
                one["score"] = SCORES[grade.grade]
            techniques.append(one)
    trials = [
        trial.name
        for trial in document.trials
        if trial.status == "ok" and (trial.name.startswith("stealing.") or "-transfer" in trial.name)
    ]
    if trials:
        techniques.append({"techniqueID": SURROGATE, "comment": ", ".join(trials), "enabled": True})
    return techniques
