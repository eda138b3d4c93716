"""Is some pair of classes, or some target class, far easier to connect by a trigger than the classes alone explain?

The norm of the smallest trigger that turns images of a source class into a target class depends on both, and on how
similar they are. Some classes are easy to leave and others easy to reach: on the scale of logarithms both effects are
fitted by least squares. Similar classes are easy to turn into each other, in both directions. Three tests follow, and
the smallest of their p-values is tripled:

- **pairs**: does a small patch do for one pair, at one place, what it does for no other pair and nowhere else? So it is
  for a backdoor that works on images of one class (source-specific). See `securitynet.metrics.pair_leads`. Norms do not
  show such a backdoor: what its trigger needs, turning a class into a similar one needs, too.
- **assignment**: what the effects leave of the norms, minus the same of the reverse pair: its mean over the best
  assignment of a target to each source, no target twice, against the best assignments of simulated normal matrices. A
  backdoor that leads each class to another one (all-to-all) makes it small, though no single pair need stand out.
- **targets**: is the median of a column of norms far smaller than the others? So it is for a backdoor that leads all
  classes to one, or to a few (`securitynet.metrics.outlier_blocks`).

Each names something only where it also stands out by far. A backdoor that swaps two classes has no small
norm beside the reverse pair's, and looks like two similar classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.metrics.outlier_blocks import FAR, find_outlier_block
from securitynet.metrics.pair_leads import LeadTest, find_leading_pair

Values = NDArray[np.float64]

TESTS = 3
"""Number of tests by which the smallest p-value is multiplied."""

FEWEST_PAIRS = 20
"""Pairs without which two effects and outliers cannot be separated: those of five classes."""


MOST_CLASSES = 40
"""Classes above which assignments are not tested: their simulation takes too long."""

SETS = 999
"""Simulated matrices."""

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class PairTest:
    """The result of the tests.

    Attributes:
        p_value: Three times the smallest of the p-values, at most 1.
        leading: The pair (source, target) that leads the others at one place, if it does.
        assignment: Pairs of the best assignment, the easiest first, if it is far too easy; else empty.
        targets: Target classes that are far too easy to reach, the easiest first.
        lead: The test of the leads; None if there was none.
        shares: Norms as shares of what source and target suggest, S×T; NaN where the norm is not known.
        reach: Medians of the norms by target class, T; infinite for classes that were hardly reached.
    """

    p_value: float
    leading: tuple[int, int] | None
    assignment: Pairs
    targets: tuple[int, ...]
    lead: LeadTest | None
    shares: Values
    reach: Values

    @property
    def named(self) -> bool:
        """Whether anything stands out by far."""
        return bool(self.leading or self.assignment or self.targets)


def find_easy_pairs(
    norms: Values, margins: Values | None = None, boxes: NDArray[np.int64] | None = None, *, alpha: float = 0.05
) -> PairTest | None:
    """Run the tests.

    Args:
        norms: Norm of the smallest trigger for each source class (row) and target class (column), S×T; NaN for pairs
            that were not searched, infinite where no trigger worked.
        margins: Margins that patches give, S×T×B, as for `securitynet.metrics.pair_leads.find_leading_pair`; None if
            they were not measured.
        boxes: Their places, B×3.
        alpha: Level at which something is named by the three tests together.

    Returns:
        None where no test can be computed.
    """
    norms = np.asarray(norms, dtype=np.float64)
    shares, reach = compute_shares(norms), compute_reach(norms)
    columns = np.flatnonzero(~np.isnan(reach))
    lead = None if margins is None or boxes is None else find_leading_pair(margins, boxes)
    of_targets = find_outlier_block(reach[columns], alpha=alpha / TESTS)
    of_assignment = _test_assignment(norms) if np.isfinite(norms).sum() >= FEWEST_PAIRS else None
    known = [test.p_value for test in (lead, of_targets) if test is not None]
    known += [] if of_assignment is None else [of_assignment[0]]
    if not known:
        return None
    assignment: Pairs = ()
    if of_assignment is not None and of_assignment[0] <= alpha / TESTS:
        assignment = of_assignment[1]
    return PairTest(
        min(1.0, TESTS * min(known)),
        lead.pair if lead is not None and lead.far and lead.p_value <= alpha / TESTS else None,
        assignment,
        () if of_targets is None else tuple(int(columns[position]) for position in of_targets.positions),
        lead,
        shares,
        reach,
    )


def compute_shares(norms: Values) -> Values:
    """Norms as shares of what source and target suggest, S×T; NaN where they are not known."""
    return np.asarray(np.exp(_explain_norms(np.asarray(norms, dtype=np.float64))))


def compute_reach(norms: Values) -> Values:
    """Medians of the norms by target class, T; NaN for classes that are no target of any pair searched."""
    values = []
    for column in np.asarray(norms, dtype=np.float64).T:
        searched = np.sort(column[~np.isnan(column)])
        # Of an even number the lower one, which is finite where half of the sources have a working trigger.
        values.append(searched[(len(searched) - 1) // 2] if len(searched) else np.nan)
    return np.array(values)


def _explain_norms(norms: Values) -> Values:
    """Logarithms of the norms without the effects of the classes, S×T; NaN where unknown."""
    known = np.isfinite(norms)
    logs = np.full(norms.shape, np.nan)
    if known.any():
        logs[known] = _make_projection(known) @ np.log(norms[known])
    return logs


def _make_projection(known: NDArray[np.bool_]) -> Values:
    """The matrix that takes the effects of sources and targets out of the F known values of S×T, F×F."""
    rows, columns = np.nonzero(known)
    design = np.concatenate([np.eye(known.shape[0])[rows], np.eye(known.shape[1])[columns]], axis=1)
    # The common level lies in both groups of effects; the pseudo-inverse takes the shortest of the solutions.
    return np.asarray(np.eye(len(rows)) - design @ np.linalg.pinv(design))


def _test_assignment(norms: Values) -> tuple[float, Pairs] | None:
    """The p-value of the best assignment, and its pairs if they are far too easy; None where it cannot be tested."""
    count = len(norms)
    if norms.shape != (count, count) or count > MOST_CLASSES or np.isnan(norms[~np.eye(count, dtype=bool)]).any():
        return None
    logs = _explain_norms(norms)
    differences = logs - logs.T
    deviation = float(np.nanstd(differences))
    if not deviation > 0:
        return None
    mean, pairs = _assign(differences)
    simulated = _simulate_assignments(np.isfinite(norms).tobytes(), count)
    p_value = (1 + int(np.searchsorted(simulated, mean, side="right"))) / (SETS + 1)
    far = bool(np.exp(mean * deviation) <= FAR)
    return p_value, pairs if far else ()


@lru_cache(maxsize=64)
def _simulate_assignments(finite: bytes, count: int) -> Values:
    """Ascending means of the best assignments of simulated matrices.

    Args:
        finite: Which of the K×K norms are finite, as bytes of bool.
        count: K.
    """
    known = np.frombuffer(finite, dtype=bool).reshape(count, count)
    random, projection = np.random.default_rng(0), _make_projection(known)
    means = []
    for _ in range(SETS):
        logs = np.full((count, count), np.nan)
        logs[known] = projection @ random.standard_normal(int(known.sum()))
        means.append(_assign(logs - logs.T)[0])
    return np.sort(means)


def _assign(logs: Values) -> tuple[float, Pairs]:
    """Mean of the best assignment in standard deviations, and its pairs, the smallest first.

    Args:
        logs: K×K; NaN for the diagonal and for pairs that are not known, which count as the largest one.
    """
    unknown = np.isnan(logs)
    values = logs[~unknown]
    deviation = float(values.std())
    costs = np.where(unknown, values.max(), logs)
    np.fill_diagonal(costs, costs.max() + len(costs) * float(np.ptp(costs)) + 1)  # never chosen
    rows, columns = scipy.optimize.linear_sum_assignment(costs)
    chosen = costs[rows, columns]
    order = np.argsort(chosen, kind="stable")
    pairs = tuple((int(rows[position]), int(columns[position])) for position in order)
    return float(chosen.mean()) / deviation, pairs
