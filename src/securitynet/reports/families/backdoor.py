"""What a report says about backdoor detection."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.families import _filters
from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

ALPHA = 0.05

KINDS: dict[str, Kind] = {
    **_filters.KINDS,
    "p-value": Kind("p-value of the smallest trigger"),
    "reference-p-value": Kind("p-value against clean models"),
    "anomaly-index": Kind("Anomaly index (the rule flags above 2)"),
    "flagged-labels": Kind("Labels that the rule flags"),
    "rule-false-positives": Kind("How often the rule flags a clean model", "share"),
    "smallest-trigger": Kind("Smallest trigger, as a share of the image", "share"),
    "converged": Kind("Labels for which the search converged", "share"),
    "localisation-iou": Kind("Overlap with the known trigger", "share"),
    "true-positive-rate": Kind("Backdoored models detected", "share"),
    "false-positive-rate": Kind("Clean models flagged", "share"),
}


def sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """What the detectors that ran show."""
    said: list[str] = []
    for trial in trials:
        start = f"{trial.name}."
        measured = {m.name.removeprefix(start): m for m in verdict.measurements_of(document, trial)}
        if trial.name.partition("@")[0] == "backdoor.neural-cleanse" and "p-value" in measured:
            said += _smallest_trigger(measured)
    return [*said, *_filters.sentences(document, trials)]


def _smallest_trigger(measured: dict[str, Measurement]) -> list[str]:
    """Both verdicts on the smallest trigger: the calibrated one, then the paper's rule with its false-positive rate."""
    calibrated = measured["p-value"]
    if calibrated.value is None or calibrated.low is None or calibrated.high is None:
        return [f"Neural Cleanse gives no verdict: {calibrated.note}."]
    said = [f"{_in_words(calibrated)} {_not_proof(calibrated)}"]
    index, rate = measured.get("anomaly-index"), measured.get("rule-false-positives")
    if index is not None and index.value is not None and rate is not None and rate.value is not None:
        flags = "flags it" if index.value > 2 else "does not flag it"
        said.append(
            f"The rule of the Neural Cleanse paper {flags} (anomaly index {index.value:.2f}, threshold 2). It also "
            f"flags {words.rate(rate.value)} of clean models with as many labels, if their norms are normally "
            "distributed."
        )
    return said


def _in_words(p: Measurement) -> str:
    assert p.value is not None and p.low is not None and p.high is not None
    value = f"p\u00a0=\u00a0{p.value:.3f}" if p.value >= 0.001 else "p\u00a0<\u00a00.001"
    if p.high <= ALPHA:
        return f"One class can be reached with a far smaller trigger than the others ({value}): a sign of a backdoor."
    if p.low > ALPHA:
        return f"No class stands out by a small trigger ({value}): the trigger sizes are usual for a clean model."
    return f"It is undecided whether a class stands out by a small trigger ({value}, with 0.05 inside its interval)."


def _not_proof(p: Measurement) -> str:
    if p.high is not None and p.high <= ALPHA:
        return "One clean model in twenty looks like this too: compare the mask with images of the class."
    return "This does not rule out a backdoor: triggers that cover the image or lead to all classes stay hidden."
