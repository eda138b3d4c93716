"""The blind baseline: how well members are distinguished from non-members without the model.

The classifier is a ridge regression of membership on features, cross-fitted: the records are dealt into folds, and each
is scored by a fit to the other folds. Cross-fitted scores are not independent of one another, since the fits share
records; on groups that do not differ their AUC varies more than that of fixed scores, and its mean lies a little below
0.5. Both are measured on the data at hand by fitting permuted memberships, which costs little as a ridge regression is
linear in what it predicts. An interval is widened by that, and it excludes 0.5 on either side only if few permutations
lie as far out as the AUC: for groups that do not differ, at most (1 - level)/2 of the time on each side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from securitynet.metrics import roc
from securitynet.records import Direction, Measurement

FOLDS = 5
RIDGE = 0.1
"""Weight of the penalty, as a share of the number of records that are fitted; features have a variance of 1."""

FEWEST = 20
"""Records of each group without which nothing is fitted."""

METHOD = f"{roc.AUC_METHOD}, widened by permutations for cross-fitting"

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BlindScores:
    """Cross-fitted scores of N records.

    Attributes:
        scores: Higher means "more likely a member", N; comparable between folds.
        is_member: The truth, N.
        permuted: AUCs for permuted memberships, P.
    """

    scores: Floats
    is_member: NDArray[np.bool_]
    permuted: Floats

    def auc(self, *, level: float = 0.95, name: str = "auc") -> Measurement:
        """The AUC, with an interval that cross-fitting does not make too short."""
        members, non_members = self.scores[self.is_member], self.scores[~self.is_member]
        value = roc.compute_auc(members, non_members)
        low, high = roc.compute_auc_limits(members, non_members, level)
        m, n = len(members), len(non_members)
        # Of scores that are independent of the truth, the AUC has this deviation (Mann and Whitney, 1947).
        independent = np.sqrt((m + n + 1) / (12 * m * n))
        wider = max(1.0, float(np.sqrt(np.mean((self.permuted - 0.5) ** 2))) / independent)
        low, high = max(0.0, value - wider * (value - low)), min(1.0, value + wider * (high - value))
        above, below = (
            (1 + int(reached.sum())) / (1 + len(self.permuted))
            for reached in (self.permuted >= value, self.permuted <= value)
        )
        if above > (1 - level) / 2:
            low = min(low, 0.5)
        if below > (1 - level) / 2:
            high = max(high, 0.5)
        return Measurement(
            name=name,
            value=value,
            low=min(low, value),
            high=max(high, value),
            level=level,
            n=m + n,
            direction=Direction.LOWER,
            method=METHOD,
        )


def fit_blind(features: Floats, is_member: NDArray[np.bool_], *, level: float = 0.95, seed: int = 0) -> BlindScores:
    """Score records by their features, cross-fitted, and do the same for permuted memberships.

    Args:
        features: N×D, of any scale; each is replaced by its normal scores, so that no outlier decides.
        is_member: N.
        level: The finest confidence level at which an interval will be asked for; it decides the permutations.
        seed: Of the folds and the permutations.

    Raises:
        ValueError: If a group has fewer than `FEWEST` records.
    """
    m, n = int(is_member.sum()), int((~is_member).sum())
    if min(m, n) < FEWEST:
        raise ValueError(f"{FEWEST} members and non-members are needed, there are {m} and {n}")
    random = np.random.Generator(np.random.PCG64(seed))
    columns = make_normal(features)
    fold = _deal(is_member, random)
    count = int(np.ceil(20 / (1 - level))) - 1
    truths = np.repeat(is_member.astype(np.float64)[:, None], count + 1, axis=1)
    for number in range(FOLDS):  # within folds, so that each keeps its shares of both groups
        rows = np.flatnonzero(fold == number)
        truths[rows, 1:] = random.permuted(truths[rows, 1:], axis=0)
    scores = np.empty_like(truths)
    for number in range(FOLDS):
        held = fold == number
        scores[held] = _predict(columns[~held], truths[~held], columns[held])
    ranks = scipy.stats.rankdata(scores, axis=0)
    aucs = ((ranks * truths).sum(axis=0) - m * (m + 1) / 2) / (m * n)
    return BlindScores(scores[:, 0], is_member, aucs[1:])


def make_normal(features: Floats) -> Floats:
    """Normal scores of each feature, of variance 1, ties sharing theirs; features that do not vary are left out."""
    ranks = scipy.stats.rankdata(features, axis=0)
    scores = special.ndtri(ranks / (len(features) + 1))
    deviation = scores.std(axis=0)
    varies = deviation > 1e-9
    kept: Floats = (scores[:, varies] - scores[:, varies].mean(axis=0)) / deviation[varies]
    return kept


def match(
    scores: Floats, is_member: NDArray[np.bool_], *, seed: int = 0, caliper: float = 0.2
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a member and a non-member that the blind baseline does not tell apart: propensity matching.

    Each record is used once. A partner's score differs by at most ``caliper`` standard deviations (Austin,
    Pharmaceutical Statistics 10, 2011). In ascending order of the scores, each record takes the nearest that is free.

    Args:
        scores: Of the blind baseline, N.
        is_member: N.
        seed: Of the order of records that tie.
        caliper: See above.

    Returns:
        Positions of the members and of the non-members of each pair, both P.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    order = random.permutation(len(scores))
    order = order[np.argsort(scores[order], kind="stable")]
    most = caliper * float(scores.std())
    waiting: list[int] = []  # of one group, all below the next record; the last is the nearest
    members, others = [], []
    for at in order.tolist():
        if waiting and is_member[waiting[-1]] != is_member[at]:
            partner = waiting.pop()
            if scores[at] - scores[partner] <= most:
                members.append(at if is_member[at] else partner)
                others.append(partner if is_member[at] else at)
            else:
                waiting = [at]  # all that wait lie even farther below
        else:
            waiting.append(at)
    return np.array(members, dtype=np.int64), np.array(others, dtype=np.int64)


def _deal(is_member: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """A fold for each record, N; each fold has its share of both groups."""
    fold = np.empty(len(is_member), dtype=np.int64)
    for group in (True, False):
        rows = np.flatnonzero(is_member == group)
        fold[random.permutation(rows)] = np.arange(len(rows)) % FOLDS
    return fold


def _predict(known: Floats, truths: Floats, others: Floats) -> Floats:
    """Ridge regressions of truths (M×P) on known features (M×D), evaluated on others (N×D): N×P."""
    shares = truths.mean(axis=0)
    penalty = RIDGE * len(known)
    if known.shape[1] <= len(known):
        gram = known.T @ known
        gram[np.diag_indices_from(gram)] += penalty
        return np.asarray(others @ np.linalg.solve(gram, known.T @ (truths - shares)))
    gram = known @ known.T
    gram[np.diag_indices_from(gram)] += penalty
    return np.asarray(others @ (known.T @ np.linalg.solve(gram, truths - shares)))
