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
from typing import Literal, NamedTuple

import numpy as np
import pandas

from securitynet.analysis.figures.texts import estimate, number
from securitynet.analysis.hypotheses.cases import NoCases, select_rows
from securitynet.analysis.hypotheses.claim import Claim
from securitynet.analysis.hypotheses.tested import Tested, decide_none, decide_outcome
from securitynet.analysis.papers.compare import Compared, describe_papers
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
        sentence: The finding in words, with the paper's numbers.
        tested: The outcome of the test, with other estimands; None if there were no cases.
        compared: The numbers that the paper prints on it, and this data's.
    """

    claim: Claim
    status: Status
    estimate: Estimate | None
    sentence: str
    tested: Tested | None = None
    compared: tuple[Compared, ...] = ()


def judge_claims(
    claims: Sequence[Claim], tidy: pandas.DataFrame, level: float = 0.95, compared: Sequence[Compared] = ()
) -> list[ClaimFinding]:
    """The findings on claims, in their order.

    Args:
        claims: The claims, which are tested together.
        tidy: Tidy frame.
        level: Confidence level over all claims.
        compared: From `securitynet.analysis.papers.compare.compare_with_papers`, for the numbers beside the findings.
    """
    outcomes = [_test(claim, tidy, level) for claim in claims]
    count = sum(outcome.reason is None for outcome in outcomes)
    alpha = (1 - level) / max(count, 1)
    findings = []
    for claim, outcome in zip(claims, outcomes, strict=True):
        if outcome.reason is None and outcome.wide is not None:
            strict = claim.test(outcome.wide, 1 - alpha if claim.sign else 1 - 2 * alpha)
            finding = _judged(claim, strict, level, count)
        else:
            finding = _untested(claim, outcome)
        printed = tuple(item for item in compared if item.printed.name in claim.printed)
        if printed:
            finding = replace(finding, compared=printed, sentence=finding.sentence + describe_papers(printed))
        findings.append(finding)
    return findings


class _Outcome(NamedTuple):
    """What is known before the number of tests is: the cases, the test at the common level, why it gives no verdict."""

    wide: pandas.DataFrame | None
    tested: Tested | None
    reason: str | None


def _test(claim: Claim, tidy: pandas.DataFrame, level: float) -> _Outcome:
    try:
        wide = select_rows(tidy, claim.quantities, only=claim.only, prefer=claim.prefer,
                           with_defenses=claim.with_defenses,
                      prepare=claim.prepare)  # fmt: skip
    except NoCases as reason:
        return _Outcome(None, None, str(reason))
    tested = claim.test(wide, level)
    return _Outcome(wide, tested, _reason(tested))


def _reason(tested: Tested) -> str | None:
    """Why a test gives no verdict; None if it does."""
    result = tested.estimate
    if not result.resolved or not np.isfinite(result.low):
        return result.method
    if result.n < tested.fewest:
        return f"too few {tested.units}: {result.n}, where {tested.fewest} are needed"
    return None


def _untested(claim: Claim, outcome: _Outcome) -> ClaimFinding:
    sentence = f"{claim.sentence} Not tested: {(outcome.reason or '').rstrip('.')}."
    tested = outcome.tested
    known = tested.estimate if tested is not None and tested.estimate.resolved else None
    return ClaimFinding(claim, "not tested", known, sentence, tested)


def _judged(claim: Claim, tested: Tested, level: float, count: int) -> ClaimFinding:
    result = tested.estimate
    status: Status
    if claim.sign == 0:
        assert claim.margin is not None
        status, note = decide_none(tested, claim.margin, claim.against), ""
        bar = f"; less than {number(claim.margin, 2)} counts as none"
    else:
        status, note = decide_outcome(tested, claim.sign, claim.against)
        bar = f", against {claim.against:g}" if claim.against else ""
    several = f", for {count} claims tested together" if count > 1 else ""
    where = f" {tested.label}" if tested.label else ""
    numbers = (
        f"{claim.measure}{where} {estimate(result.value, result.low, result.high)}, n = {result.n:,}"
        f"{'' if tested.units == 'models' else ' ' + tested.units}{bar}"
    )
    beside = "".join(
        f"; {label}: {estimate(other.value, other.low, other.high)}" for label, other in tested.beside if other.resolved
    )
    interval = "interval of two one-sided tests" if claim.sign == 0 else f"{100 * level:g}% interval"
    sentence = (
        f"{claim.sentence} {status.capitalize()} here: {numbers}{beside} ({interval}{several}; {result.method})."
        f"{' ' + note if note else ''}{''.join(' ' + text for text in tested.notes)}"
    )
    return ClaimFinding(claim, status, result, sentence, tested)
