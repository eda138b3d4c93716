"""SARIF 2.1.0, for code scanning: a result for each graded family, and for each bound of the policy that is not met."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from securitynet.records import FAMILIES
from securitynet.results.document import ResultDocument
from securitynet.results.exports.texts import describe_grade, write_json_bytes
from securitynet.results.grades import Grade

LEVELS: dict[Grade, tuple[str, str]] = {
    "high": ("fail", "error"),
    "moderate": ("fail", "warning"),
    "slight": ("fail", "note"),
    "undecided": ("review", "none"),
    "none shown": ("pass", "none"),
    "not assessed": ("notApplicable", "none"),
}
"""Grade -> kind and level of a result; the level of all but failures is ``none``, by the standard."""


def render(document: ResultDocument) -> bytes:
    """The log of one run, as JSON."""
    rules = [
        {
            "id": f"securitynet/{family}",
            "name": title.title().replace(" ", ""),
            "shortDescription": {"text": title},
        }
        for family, title in FAMILIES.items()
    ]
    rules.append(
        {"id": "securitynet/policy", "name": "Policy", "shortDescription": {"text": "A bound of the policy is not met"}}
    )
    ids = [rule["id"] for rule in rules]
    results: list[dict[str, Any]] = []
    for grade in document.grades:
        kind, level = LEVELS[grade.grade]
        text = describe_grade(document, grade)
        results.append(_result(document, ids, f"securitynet/{grade.family}", kind, level, text))
    for violation in document.policy.violations if document.policy is not None else ():
        text = f"{violation.name} must be {violation.bound}: {violation.why}."
        results.append(_result(document, ids, "securitynet/policy", "fail", "error", text))
    driver = {"name": "securitynet", "rules": rules}
    if version := document.environment.get("securitynet"):
        driver["version"] = version
    return write_json_bytes(
        {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": results}],
        }
    )


def _result(document: ResultDocument, ids: list[Any], rule: str, kind: str, level: str, text: str) -> dict[str, Any]:
    stated = document.settings.get("weights") or document.target.reference
    place = quote(PurePath(str(stated)).name)  # a place within the repository; nothing of the machine
    return {
        "ruleId": rule,
        "ruleIndex": ids.index(rule),
        "kind": kind,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": place}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"securitynetTarget/v1": document.target.checksum},
    }
