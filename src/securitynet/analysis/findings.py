"""Findings: claims of the two papers as hypotheses, and whether the data supports each.

A claim is **supported** if the interval of its estimate lies on the claimed side of zero, **contradicted** if it lies
on the other side, and **undecided** otherwise. Intervals are widened for the number of claims tested on the same data
(Bonferroni), so that a page of findings rarely contains one that is due to chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import frames, statistics
from securitynet.analysis.figures.defenses import compared
from securitynet.analysis.figures.texts import estimate
from securitynet.analysis.frames import Quantity
from securitynet.analysis.simpson import describe_mixed_signs
from securitynet.analysis.statistics import Estimate

FEWEST = 6
"""Fewest models for a verdict: with fewer, resampling gives intervals that are far too narrow."""

Status = Literal["supported", "contradicted", "undecided", "not tested"]

Test = Callable[[pandas.DataFrame, float], Estimate]
"""From a wide frame and a confidence level to an estimate whose sign decides."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A hypothesis.

    Attributes:
        name: Short identifier.
        sentence: The claim, as a sentence.
        source: Paper and section that make it.
        quantities: What must have been measured.
        test: Computes the estimate.
        sign: The sign of the estimate that the claim asserts.
        measure: What the estimate is, in words.
        restrict: Column -> values of the cases that the paper covers, applied if there are any.
    """

    name: str
    sentence: str
    source: str
    quantities: Mapping[str, Quantity]
    test: Test
    sign: Literal[1, -1]
    measure: str
    restrict: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ClaimFinding:
    """The verdict of the data on a claim.

    Attributes:
        claim: The claim.
        status: The verdict, as the module defines it.
        estimate: None if it was not tested.
        sentence: The finding in words.
    """

    claim: Claim
    status: Status
    estimate: Estimate | None
    sentence: str


def correlation(x: str, y: str, kind: Literal["pearson", "spearman"] = "pearson") -> Test:
    """A test of the correlation within datasets, leaving out whole families.

    Args:
        x: Name of a quantity.
        y: Name of a quantity.
        kind: Pearson's or Spearman's correlation.
    """

    def test(wide: pandas.DataFrame, level: float) -> Estimate:
        a, b = wide[x].to_numpy(float), wide[y].to_numpy(float)
        datasets = wide["dataset"].astype(str).to_numpy()
        found = statistics.correlation(a, b, kind=kind, clusters=_families(wide), strata=datasets, level=level)
        mixed = describe_mixed_signs(
            (name, statistics.correlation(a[datasets == name], b[datasets == name], kind=kind).value)
            for name in sorted(set(datasets))
        )
        return found if mixed is None else replace(found, method=f"{found.method}. {mixed.rstrip('.')}")

    return test


def difference(first: str, second: str) -> Test:
    """A test of the mean of ``second - first`` over cases that have both."""

    def test(wide: pandas.DataFrame, level: float) -> Estimate:
        a, b = wide[first].to_numpy(float), wide[second].to_numpy(float)
        return statistics.paired_difference(a, b, clusters=_families(wide), level=level)

    return test


def between(quantity: str, column: str, first: str | None, second: str) -> Test:
    """A test of the difference between the means of two groups of cases, second minus first.

    Args:
        quantity: Name of the quantity.
        column: The column that defines the groups.
        first: Its value in the first group; None if the value is missing there.
        second: Its value in the second group.
    """

    def test(wide: pandas.DataFrame, level: float) -> Estimate:
        values = wide[quantity].to_numpy(float)
        is_first = wide[column].isna() if first is None else wide[column] == first
        is_second = wide[column] == second
        first_rows, second_rows = is_first.to_numpy(bool), is_second.to_numpy(bool)
        families = _families(wide)
        clusters = None if families is None else (families[first_rows], families[second_rows])
        return statistics.group_difference(values[first_rows], values[second_rows], clusters=clusters, level=level)

    return test


def against_undefended(quantity: str, defense: str) -> Test:
    """A test of the mean difference between targets with and without a defense.

    A target is compared with one of the same dataset, seed and architecture (for a student, its teacher's). Where no
    such target has the seed, the mean over other seeds is used.
    """

    def test(wide: pandas.DataFrame, level: float) -> Estimate:
        cases = compared(wide, defense)
        plain = cases[cases["defense"].isna() & cases[quantity].notna()]
        means = plain.groupby(["dataset", "pair"])[quantity].mean()
        same = plain.groupby(["dataset", "pair", "seed"])[quantity].mean()
        with_it = cases[cases["defense"].notna()]
        keys = list(zip(with_it["dataset"], with_it["pair"], with_it["seed"], strict=True))
        before = np.array([same.get(key, means.get(key[:2], np.nan)) for key in keys], float)
        return statistics.paired_difference(before, with_it[quantity].to_numpy(float), level=level)

    return test


def judge(claims: Sequence[Claim], tidy: pandas.DataFrame, level: float = 0.95) -> list[ClaimFinding]:
    """The findings on claims, in their order.

    Args:
        claims: The claims, which are tested together.
        tidy: Tidy frame.
        level: Confidence level over all claims.
    """
    prepared = [(claim, _wide(claim, tidy)) for claim in claims]
    tested = sum(wide is not None for _, wide in prepared)
    strict = 1 - (1 - level) / max(tested, 1)
    return [_judged(claim, wide, level, strict, tested) for claim, wide in prepared]


def _wide(claim: Claim, tidy: pandas.DataFrame) -> pandas.DataFrame | None:
    """The cases that a claim is about; None if a quantity was not measured."""
    tidy = frames.preferring(tidy, claim.restrict, claim.quantities.values())
    if any(frames.take(tidy, quantity).empty for quantity in claim.quantities.values()):
        return None
    return frames.wide(tidy, dict(claim.quantities))


def _judged(claim: Claim, wide: pandas.DataFrame | None, level: float, strict: float, tested: int) -> ClaimFinding:
    if wide is None:
        lacking = "; ".join(sorted({quantity.label for quantity in claim.quantities.values()}))
        sentence = f"{claim.sentence} Not tested: this data lacks one of: {lacking}."
        return ClaimFinding(claim, "not tested", None, sentence)
    result = claim.test(wide, strict)
    if not result.resolved or not np.isfinite(result.low):
        return ClaimFinding(claim, "not tested", None, f"{claim.sentence} Not tested: {result.method} ({result.n}).")
    if result.n < FEWEST:
        few = f"Not tested: {result.n} models are too few, {FEWEST} are needed."
        return ClaimFinding(claim, "not tested", result, f"{claim.sentence} {few}")
    toward = (result.low, result.high) if claim.sign > 0 else (-result.high, -result.low)
    status: Status = "supported" if toward[0] > 0 else "contradicted" if toward[1] < 0 else "undecided"
    numbers = f"{claim.measure} {estimate(result.value, result.low, result.high)}, n = {result.n:,}"
    several = f", for {tested} claims tested together" if tested > 1 else ""
    sentence = (
        f"{claim.sentence} {status.capitalize()} here: {numbers} ({100 * level:g}% interval{several}; {result.method})."
    )
    return ClaimFinding(claim, status, result, sentence)


def _families(wide: pandas.DataFrame) -> NDArray[np.object_] | None:
    return wide["family"].astype(str).to_numpy() if wide["family"].notna().all() else None
