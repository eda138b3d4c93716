"""Does a patch do for one pair of classes, at one place of the image, what it does nowhere else and for no other pair?

The margin that a patch can give to a target class on images of a source class depends on the source, the target and
the place, and on each two of them: some classes are close, some targets are drawn in some places, and some sources
leave room there. All that is taken out by medians (Tukey's median polish in three directions). What is left is divided
by its usual size at its place, since patches at the edge do less than in the middle. The **lead** of a pair at a place
is what is left minus the mean of the next largest value in three directions: for other sources, for other targets, and
at places that do not overlap with this one. So shapes that several classes share, and patches that work wherever they
lie, lead by little; a trigger for images of one class leads in all three directions.

The largest lead of each pair is one value. A largest value over many places is distributed like Gumbel's extreme
values, more or less, whose upper tail is longer than a normal one. So the pair that leads most is tested against a
Gumbel distribution with the mean and the standard deviation of the other pairs' leads. Grubbs' test, which presumes
normal draws, gave p-values below 0.001 for clean networks. The pair must also lead the next one by far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

FEWEST_PAIRS, FEWEST_IN_LINE = 20, 4
"""Pairs without which there is no test; pairs of a source, and of a target, without which its medians say nothing."""

FAR = 1.4
"""Least ratio of the largest lead to that of the next pair with which a pair is far ahead."""

SWEEPS = 10
"""Sweeps of the median polish; after that the medians hardly change."""

LEAST_SCALE = 0.25
"""Least scale of a place, as a share of the median place's: at an edge that is always black, nothing else happens."""


@dataclass(frozen=True, eq=False)
class LeadTest:
    """The result of the test.

    Attributes:
        p_value: Of the pair that leads most, in (0, 1].
        pair: Its source and target.
        place: The place at which it leads.
        far: Whether it leads by at least `FAR` times what the next pair does.
        leads: The largest lead of each pair, S×T; NaN where there is none.
        places: Where it is, S×T; -1 where there is none.
    """

    p_value: float
    pair: tuple[int, int]
    place: int
    far: bool
    leads: Values
    places: NDArray[np.int64]


def find_leading_pair(margins: Values, boxes: NDArray[np.int64]) -> LeadTest | None:
    """Test whether one pair of classes leads the others at one place.

    Args:
        margins: Mean margin of each target class on images of each source class with the patch at each place, S×T×B;
            NaN for pairs that were not searched.
        boxes: Top, left and side of the places, B×3.

    Returns:
        None with too few pairs, or where patches do the same everywhere.
    """
    by_place = compute_pair_leads(margins, boxes)
    known = ~np.isnan(by_place).all(axis=2)
    if known.sum() < FEWEST_PAIRS:
        return None
    filled = np.where(np.isnan(by_place), -np.inf, by_place)
    places = np.where(known, filled.argmax(axis=2), -1)
    leads = np.where(known, filled.max(axis=2), np.nan)
    pairs = np.argwhere(known)
    position = int(leads[known].argmax())
    largest, others = float(leads[known][position]), np.delete(leads[known], position)
    p_value = compute_gumbel_p_value(others, largest)
    far = bool(largest >= FAR * others.max())
    source, goal = (int(label) for label in pairs[position])
    return LeadTest(p_value, (source, goal), int(places[source, goal]), far, leads, places)


def compute_gumbel_p_value(others: Values, largest: float) -> float:
    """Probability that the largest of N + 1 draws from a Gumbel distribution is at least so large, in (0, 1].

    Args:
        others: N values, at least two, whose mean and standard deviation give the distribution.
        largest: The value that is tested.
    """
    tiny = float(np.finfo(np.float64).tiny)
    scale = max(float(others.std(ddof=1)) * np.sqrt(6) / np.pi, tiny)
    location = float(others.mean()) - np.euler_gamma * scale
    expected = (len(others) + 1) * np.exp(-(largest - location) / scale)  # draws that are at least so large
    return max(float(-np.expm1(-expected)), tiny)


def compute_pair_leads(margins: Values, boxes: NDArray[np.int64]) -> Values:
    """The lead of each pair at each place, S×T×B; NaN where it cannot be known.

    Args:
        margins: As for `find_leading_pair`.
        boxes: Likewise.
    """
    margins = np.array(margins, dtype=np.float64)
    known = ~np.isnan(margins).any(axis=2)
    while True:  # a source or target with too few pairs is left out, which may leave too few for others
        enough = (known.sum(axis=1) >= FEWEST_IN_LINE)[:, None] & (known.sum(axis=0) >= FEWEST_IN_LINE)
        if not (known & ~enough).any():
            break
        known &= enough
    margins[~known] = np.nan
    nothing = np.full(margins.shape, np.nan)
    apart = ~_find_overlaps(boxes)
    if not known.any() or not apart.any(axis=1).all():
        return nothing
    rest = _polish(margins)
    scale = np.nanmedian(np.abs(rest[known]), axis=0)
    least = LEAST_SCALE * float(np.median(scale))
    if not least > 0:
        return nothing
    values = np.where(np.isnan(rest), -np.inf, rest / np.maximum(scale, least))
    elsewhere = np.stack([values[:, :, others].max(axis=2) for others in apart], axis=2)
    rivals = (_find_rivals(values, 0) + _find_rivals(values, 1) + elsewhere) / 3
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values), values - rivals, np.nan)


def _polish(margins: Values) -> Values:
    """What the medians over places, targets and sources leave of the margins, S×T×B."""
    rest, known = margins.copy(), ~np.isnan(margins)
    for _ in range(SWEEPS):
        for axis in (2, 1, 0):
            some = known.any(axis=axis, keepdims=True)
            medians = np.nanmedian(np.where(some, rest, 0.0), axis=axis, keepdims=True)
            rest = rest - medians
    return rest


def _find_rivals(values: Values, axis: int) -> Values:
    """The largest of the other values along an axis."""
    order = np.sort(values, axis=axis)
    first, second = np.take(order, [-1], axis=axis), np.take(order, [-2], axis=axis)
    return np.where(values == first, second, first)


def _find_overlaps(boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which places have pixels in common, B×B."""
    boxes = np.asarray(boxes, dtype=np.int64)
    near = [np.abs(boxes[:, None, side] - boxes[None, :, side]) < boxes[0, 2] for side in (0, 1)]
    return np.asarray(near[0] & near[1])
