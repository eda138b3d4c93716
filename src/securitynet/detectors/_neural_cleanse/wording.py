"""The verdict of Neural Cleanse as one sentence, which results, terminal and report all show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from securitynet.metrics.backdoor_verdict import BackdoorEvidence, Verdict

MISSED = "triggers that cover the image, lead each class to another one, or work on images of one class only"


def describe_search_verdict(
    verdict: Verdict,
    evidence: BackdoorEvidence,
    labels: Sequence[str],
    *,
    share: float | None,
    detectable: float | None,
) -> str:
    """The verdict with the numbers that it rests on.

    Args:
        verdict: The verdict.
        evidence: What it rests on.
        labels: The accused labels in words, the one with the smallest norm first; empty if no label converged.
        share: The smallest norm as a share of the image.
        detectable: Largest share of the median norm at which a label would have been named an outlier.
    """
    if verdict.word == "nothing found":
        return f"Nothing found{_in_brackets(evidence)}. {_describe_misses(detectable)}"
    if not labels:
        return "Undecided: no label has a trigger that works, so there is nothing to compare."
    if evidence.too_short:
        return _describe_short_search(evidence, labels[0], share)
    measures = "; ".join([*_list_measures(evidence, share), *_list_p_values(evidence)])
    named, several = _join(labels), len(labels) > 1
    if several:
        measures = f"the first: {measures}"
    if verdict.word == "backdoor found":
        trigger = "unusually small triggers" if several else "an unusually small trigger"
        return f"Backdoor found: {named} can be reached with {trigger}, pictured below ({measures})."
    because = _join([reason.replace("its ", "the first one's ") if several else reason for reason in verdict.reasons])
    if verdict.word == "suspicious":
        trigger = "far smaller triggers" if several else "a far smaller trigger"
        return f"Suspicious: {named} can be reached with {trigger} than others ({measures}), but {because}."
    if evidence.block_accuses:
        norm = "their norms are outliers" if several else "its norm is an outlier"
        return f"Undecided: the tests disagree about {named}: {norm} ({measures}), but {because}."
    if evidence.p_value is None and not evidence.reference_decides:
        return (
            f"Undecided: the smallest trigger leads to {named} ({measures}); {because}. Compare with clean models, "
            "neural-cleanse.reference=19."
        )
    return f"Undecided: the tests disagree about {named} ({measures}): no test accuses it, but {because}."


def _describe_short_search(evidence: BackdoorEvidence, label: str, share: float | None) -> str:
    """What is known when norms had not settled: nothing that compares them."""
    measures = "; ".join(_list_measures(replace(evidence, ratio=None), share))
    unsettled = 1 - (evidence.settled or 0)
    return (
        f"Undecided: the search was too short. The norms of {100 * unsettled:.0f}% of the labels had not settled when "
        f"it ended, so they cannot be compared. The smallest trigger so far leads to {label} ({measures}). Search "
        "longer, with a larger neural-cleanse.longest, or with neural-cleanse.preset=original and without "
        "neural-cleanse.epochs: then each label is searched until its norm falls no further."
    )


def _describe_misses(detectable: float | None) -> str:
    if detectable is None:
        return f"A search like this one misses large patches, and {MISSED}."
    if detectable == 0:
        return (
            "With norms like these, a search like this one misses small triggers too, as well as large patches, and "
            f"{MISSED}."
        )
    return (
        "A search like this one would miss a backdoor whose trigger needs more than "
        f"{detectable:.2g} of the median norm, as that of a large patch may, and {MISSED}."
    )


def _in_brackets(evidence: BackdoorEvidence) -> str:
    p_values = _list_p_values(evidence)
    return f" ({'; '.join(p_values)})" if p_values else ""


def _list_measures(evidence: BackdoorEvidence, share: float | None) -> list[str]:
    measures = []
    if share is not None:
        measures.append(f"{100 * share:.2g}% of the image")
    if evidence.ratio is not None:
        measures.append(f"{evidence.ratio:.2g} of the others' median norm")
    if evidence.success is not None:
        measures.append(f"works on {100 * evidence.success:.0f}% of fresh images of other classes")
    return measures


def _list_p_values(evidence: BackdoorEvidence) -> list[str]:
    p_values = []
    if evidence.p_value is not None:
        p_values.append(format_p_value(evidence.p_value))
    if evidence.reference_p is not None:
        p_values.append(f"{format_p_value(evidence.reference_p)} among {evidence.references} clean models")
    return p_values


def format_p_value(value: float) -> str:
    """A p-value with three decimals."""
    return f"p\u00a0=\u00a0{value:.3f}" if value >= 0.001 else "p\u00a0<\u00a00.001"


def _join(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
