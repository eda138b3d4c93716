"""Findings: claims of the two papers as hypotheses, and whether the data supports each.

A claim that something is larger, or smaller, is **supported** if the interval of its estimate lies on the claimed side,
**contradicted** if it lies on the other side, and **undecided** otherwise. A claim of no difference is supported if the
interval lies within a stated margin (two one-sided tests), and contradicted if it lies outside; that a difference is
not significant supports nothing. Intervals are widened for the number of claims tested on the same data (Bonferroni),
so that a page of findings rarely contains one that is due to chance.

Beside each finding stand the numbers that the paper prints on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas

from securitynet.analysis.figures.texts import estimate, number
from securitynet.analysis.hypotheses.cases import NoCases, select
from securitynet.analysis.hypotheses.claim import Claim
from securitynet.analysis.hypotheses.tested import Tested, decide, decide_none
from securitynet.analysis.papers.compare import Compared
from securitynet.analysis.statistics import Estimate

Status = Literal["supported", "contradicted", "undecided", "not tested"]
STATUSES: tuple[Status, ...] = ("supported", "contradicted", "undecided", "not tested")


@dataclass(frozen=True, eq=False)
class ClaimFinding:
    """The verdict of the data on a claim.

    Attributes:
        claim: The claim.
        status: The verdict, as the module defines it.
        estimate: None if it was not tested.
        sentence: The finding in words.
        tested: The outcome of the test, with other estimands; None if there were no cases.
        compared: The numbers that the paper prints on it, and this data's.
    """

    claim: Claim
    status: Status
    estimate: Estimate | None
    sentence: str
    tested: Tested | None = None
    compared: tuple[Compared, ...] = ()


def judge(
    claims: Sequence[Claim], tidy: pandas.DataFrame, level: float = 0.95, compared: Sequence[Compared] = ()
) -> list[ClaimFinding]:
    """The findings on claims, in their order.

    Args:
        claims: The claims, which are tested together.
        tidy: Tidy frame.
        level: Confidence level over all claims.
        compared: From `securitynet.analysis.papers.compare.compare`, for the numbers beside the findings.
    """
    outcomes: dict[int, Tested | str] = {}
    frames = [_cases(claim, tidy) for claim in claims]
    tested = sum(not isinstance(wide, str) for wide in frames)
    # A test that can't be resolved tests nothing, and takes no part in the adjustment.
    for number_, (claim, wide) in enumerate(zip(claims, frames, strict=True)):
        outcomes[number_] = wide if isinstance(wide, str) else claim.test(wide, 0.95)
        if isinstance(found := outcomes[number_], Tested) and _reason(found) is not None:
            tested -= 1
    alpha = (1 - level) / max(tested, 1)
    findings = []
    for number_, (claim, wide) in enumerate(zip(claims, frames, strict=True)):
        found = outcomes[number_]
        if isinstance(found, Tested) and _reason(found) is None:
            assert not isinstance(wide, str)
            found = claim.test(wide, 1 - alpha if claim.sign else 1 - 2 * alpha)
        finding = _judged(claim, found, level, tested)
        printed = tuple(item for item in compared if item.printed.name in claim.printed)
        findings.append(replace(finding, compared=printed) if printed else finding)
    return findings


def _cases(claim: Claim, tidy: pandas.DataFrame) -> pandas.DataFrame | str:
    """The cases that a claim is about, or why there are none."""
    try:
        return select(tidy, claim.quantities, only=claim.only, prefer=claim.prefer, defended=claim.defended,
                      prepare=claim.prepare)  # fmt: skip
    except NoCases as reason:
        return str(reason)


def _reason(tested: Tested) -> str | None:
    """Why a test gives no verdict; None if it does."""
    result = tested.estimate
    if not result.resolved or not np.isfinite(result.low):
        return result.method
    if result.n < tested.fewest:
        return f"{result.n} {tested.units} are too few, {tested.fewest} are needed"
    return None


def _judged(claim: Claim, found: Tested | str, level: float, count: int) -> ClaimFinding:
    reason = found if isinstance(found, str) else _reason(found)
    if reason is not None:
        sentence = f"{claim.sentence} Not tested: {reason.rstrip('.')}."
        known = None if isinstance(found, str) else found
        value = known.estimate if known is not None and known.estimate.resolved else None
        return ClaimFinding(claim, "not tested", value, sentence, known)
    assert isinstance(found, Tested)
    result = found.estimate
    status: Status
    if claim.sign == 0:
        assert claim.margin is not None
        status, note = decide_none(found, claim.margin, claim.against), ""
        bar = f"; less than {number(claim.margin, 2)} counts as none"
    else:
        status, note = decide(found, claim.sign, claim.against)
        bar = f", against {claim.against:g}" if claim.against else ""
    several = f", for {count} claims tested together" if count > 1 else ""
    where = f" {found.label}" if found.label else ""
    numbers = (
        f"{claim.measure}{where} {estimate(result.value, result.low, result.high)}, n = {result.n:,}"
        f"{'' if found.units == 'models' else ' ' + found.units}{bar}"
    )
    beside = "".join(
        f"; {label}: {estimate(other.value, other.low, other.high)}" for label, other in found.beside if other.resolved
    )
    interval = "interval of two one-sided tests" if claim.sign == 0 else f"{100 * level:g}% interval"
    sentence = (
        f"{claim.sentence} {status.capitalize()} here: {numbers}{beside} ({interval}{several}; {result.method})."
        f"{' ' + note if note else ''}{''.join(' ' + text for text in found.notes)}"
    )
    return ClaimFinding(claim, status, result, sentence, found)
