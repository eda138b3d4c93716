"""What a report says about backdoor detection."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.metrics import joint_verdict
from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.families import _filters
from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

ALPHA = 0.05

KINDS: dict[str, Kind] = {
    **_filters.KINDS,
    "verdict": Kind("Verdict: 0 nothing found, 1 undecided, 2 suspicious, 3 backdoor found"),
    "suspect-label": Kind("Label that stands out most"),
    "p-value": Kind("p-value"),
    "gamma-p-value": Kind("p-value of MM-BD's paper"),
    "reference-p-value": Kind("p-value against clean models"),
    "anomaly-index": Kind("Anomaly index (the rule flags above 2)"),
    "flagged-labels": Kind("Labels that the rule flags"),
    "rule-false-positives": Kind("How often the rule flags a clean model", "share"),
    "smallest-trigger": Kind("Smallest trigger, as a share of the image", "share"),
    "smallest-to-median": Kind("Smallest trigger, as a share of the others' median", "share"),
    "detectable-ratio": Kind("Largest trigger that would stand out, as a share of the median", "share"),
    "fresh-success": Kind("Its success on fresh images of other classes", "share"),
    "fresh-success-worst-class": Kind("Its success on the class where it works least", "share"),
    "trigger-transfer": Kind("Its success on clean models", "share"),
    "converged": Kind("Labels for which the search converged", "share"),
    "settled": Kind("Of these, labels whose norm had settled when the search ended", "share"),
    "localisation-iou": Kind("Overlap with the known trigger", "share"),
    "true-positive-rate": Kind("Backdoored models detected", "share"),
    "false-positive-rate": Kind("Clean models flagged", "share"),
}

SCANS = {
    "backdoor.mm-bd": "Largest margins (MM-BD)",
    "backdoor.last-layer": "Weights of the last layer",
    "backdoor.class-pairs": "Triggers between two classes",
    "backdoor.neuron-noise": "Margins under neuron noise",
    "backdoor.patch-margins": "Square patches by position",
}


def write_sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """The joint verdict of the scans, then those of each detector that ran on this model."""
    joint = find_joint_verdict(document)
    described = [joint.note] if joint is not None and joint.note else []
    for trial in trials:
        start = f"{trial.name}."
        measured = {m.name.removeprefix(start): m for m in verdict.select_measurements(document, trial)}
        name = trial.name.partition("@")[0]
        if name == "backdoor.neural-cleanse" and "p-value" in measured:
            described += describe_smallest_trigger(measured)
        elif name in SCANS:
            described += describe_scan(SCANS[name], measured)
    return [*described, *_filters.write_sentences(document, trials)]


def find_joint_verdict(document: ResultDocument) -> Measurement | None:
    """The verdict of all scans of the model together; None if fewer than two gave one."""
    return joint_verdict.measure_joint_verdict(document.measurements, document.dataset.classes)


def describe_scan(title: str, measured: dict[str, Measurement]) -> list[str]:
    """The verdict of a detector that compares statistics of the classes."""
    verdict_ = measured.get("verdict")
    if verdict_ is None or verdict_.value is None or not verdict_.note:
        return []
    described = [f"{title}: {verdict_.note[0].lower()}{verdict_.note[1:]}"]
    if verdict_.value == 2:
        described.append(f"Up to one clean model in {round(1 / ALPHA)} is accused like that.")
    return described


def describe_smallest_trigger(measured: dict[str, Measurement]) -> list[str]:
    """The verdict of Neural Cleanse, then what it proves, the paper's rule and what that is worth."""
    summary, p_value = measured.get("verdict"), measured["p-value"]
    if summary is None or summary.value is None or not summary.note:
        texts = [_describe_p_value(p_value)]  # a result from before there was one verdict
        rank = None
    else:
        texts, rank = [summary.note], int(summary.value)
    if rank == 3:
        texts[0] += " Look at the mask beside its class: one that traces the outline of the class is not a trigger."
    elif rank == 2:
        texts[0] += f" One clean model in {round(1 / ALPHA)} is accused like that: look at the mask beside its class."
    else:
        texts[0] += " This does not prove that there is no backdoor."
    index, rate = measured.get("anomaly-index"), measured.get("rule-false-positives")
    if index is not None and index.value is not None and rate is not None and rate.value is not None:
        flags = "flags a label" if index.value > 2 else "flags no label"
        texts.append(
            f"The rule of the Neural Cleanse paper {flags} (anomaly index {index.value:.2f}, threshold 2). It also "
            f"flags {words.write_rate(rate.value)} of clean models with as many labels, if their norms are normally "
            "distributed."
        )
    return texts


def _describe_p_value(p: Measurement) -> str:
    """A sentence on the p-value alone; it never calls a model usual, because p-values were all that was looked at."""
    if p.value is None or p.low is None or p.high is None:
        return f"Neural Cleanse gives no verdict: {p.note}."
    value = f"p\u00a0=\u00a0{p.value:.3f}" if p.value >= 0.001 else "p\u00a0<\u00a00.001"
    if p.high <= ALPHA:
        return f"One class can be reached with a far smaller trigger than the others ({value}): a sign of a backdoor."
    if p.low > ALPHA:
        return f"The test of Neural Cleanse's norms names no class ({value})."
    return f"It is undecided whether a class stands out by a small trigger ({value}, with 0.05 inside its interval)."
