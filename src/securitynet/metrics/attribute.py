"""Metrics of attribute inference: accuracy, macro-F1, and the gain of both over the class label alone.

The baselines are what could be predicted without the attack. For accuracy, this is the most frequent value, within the
class of a record where it is clear (`label_majority`). For macro-F1, which rewards guessing, it is the score of the
attack's own predictions permuted among the records of each class, so that they depend on the class only.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.metrics import paired, rates
from securitynet.records import Direction, Measurement

_NUMBERS_AT_ONCE = 1 << 23
_DENSE = 1 << 14
"""Size up to which a table is not worth the overhead of a sparse one."""

_METHOD = "Beta quantiles, jackknife variance, one worst record added"

Values = NDArray[np.int64]


def measure_attribute(
    truth: Values, predicted: Values, baseline: Values, labels: Values, *, level: float = 0.95
) -> list[Measurement]:
    """Compute all metrics of one attribute on held-out records.

    The gain is the difference from the baseline on the same records, so records that are hard for both do not widen
    its interval.

    Args:
        truth: Values of the attribute, N.
        predicted: Values that the attack predicts, N.
        baseline: Values predicted without the attack (`label_majority`), N.
        labels: Classes of the records, N.
        level: Confidence level.

    Returns:
        ``gain``, ``accuracy``, ``baseline-accuracy``, ``macro-f1-gain``, ``macro-f1`` and ``baseline-macro-f1``.

    Raises:
        ValueError: If there are no records, or the lengths differ.
    """
    if len(truth) == 0 or not len(truth) == len(predicted) == len(baseline) == len(labels):
        raise ValueError("truth, predictions, baseline and labels of the same records are needed")
    right, base = predicted == truth, baseline == truth
    lower = Direction.LOWER
    return [
        paired.measure_paired_difference("gain", right, base, direction=lower, level=level),
        rates.rate("accuracy", int(right.sum()), len(truth), direction=lower, level=level),
        rates.rate("baseline-accuracy", int(base.sum()), len(truth), direction=lower, level=level),
        *_f1_measures(truth, predicted, labels, level),
    ]


def compare_with_controls(
    truth: Values,
    predicted: Values,
    baseline: Values,
    *,
    random: Values,
    pixels: Values | None,
    level: float = 0.95,
) -> list[Measurement]:
    """What a trained network adds to random weights of its architecture, and to pixels, on the same records.

    Args:
        truth: Values of the attribute, N.
        predicted: Values that the attack predicts with the target's embeddings, N.
        baseline: Values predicted without the attack (`label_majority`), N.
        random: Values that it predicts with embeddings of R networks with random weights, R×N; R may be 0.
        pixels: Values that it predicts with pixels, N; None if that was not tried.
        level: Confidence level.

    Returns:
        ``random-gain`` (over the baseline, the mean of the networks) and ``gain-over-random`` (of the target over that
        mean), unless R is 0; ``pixel-gain`` and ``gain-over-pixels``, unless there are none.
    """
    right, base = predicted == truth, baseline == truth
    measurements = []
    if len(random):
        hits = random == truth
        measurements.append(_mean_difference("random-gain", hits, base, level=level, sign=1.0))
        measurements.append(_mean_difference("gain-over-random", hits, right, level=level, sign=-1.0))
    if pixels is not None:
        seen = pixels == truth
        measurements.append(
            paired.measure_paired_difference("pixel-gain", seen, base, direction=Direction.LOWER, level=level)
        )
        measurements.append(
            paired.measure_paired_difference("gain-over-pixels", right, seen, direction=Direction.LOWER, level=level)
        )
    return measurements


def _mean_difference(
    name: str, hits: NDArray[np.bool_], other: NDArray[np.bool_], *, level: float, sign: float
) -> Measurement:
    """Mean rate of R networks minus that of another prediction on the same N records, times ``sign``.

    The records' part of the interval is that of a bounded mean of the differences, the networks' part Student's over
    their R rates; the two are joined as independent (MOVER).
    """
    differences = sign * (hits.mean(axis=0) - other)
    value = float(differences.mean())
    low, high = map(float, rates.compute_bounded_mean(differences, (-1.0, 1.0), level))
    count, reach = len(hits), 0.0
    if count > 1:
        spread = float(hits.mean(axis=1).std(ddof=1))
        reach = float(scipy.stats.t.ppf((1 + level) / 2, count - 1)) * spread / count**0.5
    return Measurement(
        name=name,
        value=value,
        low=max(-1.0, value - ((value - low) ** 2 + reach**2) ** 0.5),
        high=min(1.0, value + ((high - value) ** 2 + reach**2) ** 0.5),
        level=level,
        n=hits.shape[1],
        direction=Direction.LOWER,
        method=f"{rates.BOUNDED_MEAN}; random networks by Student's t" if count > 1 else rates.BOUNDED_MEAN,
    )


def label_majority(known: Values, known_labels: Values, labels: Values) -> Values:
    """Predict an attribute from the class label and the majority alone, learned from records with known attribute.

    The prediction is the most frequent value of the class if it leads the next one by at least two records, and
    otherwise the most frequent value overall; with a smaller lead, leaving out one record could reverse it. If this
    rule, evaluated by leave-one-out, is no more accurate than the most frequent value overall, classes are ignored:
    what they seemed to predict is chance, and would make the baseline too easy to beat. Ties go to the first value.

    Args:
        known: Values of the attribute of records that the adversary knows, M, at least 1.
        known_labels: Their classes, M.
        labels: Classes of the records to predict, N.

    Returns:
        Predicted values, N.
    """
    classes, numbered = np.unique(known_labels, return_inverse=True)
    votes = np.zeros((len(classes), max(int(known.max()) + 1, 2)), dtype=np.int64)
    np.add.at(votes, (numbered, known), 1)
    overall = int(votes.sum(axis=0).argmax())
    hits = 0
    for value in range(votes.shape[1]):
        without = votes.copy()
        without[:, value] -= 1  # a class without such a record counts 0 times
        hits += int(votes[_of_classes(without, overall) == value, value].sum())
    guesses = np.full(len(labels), overall, dtype=np.int64)
    if hits > votes[:, overall].sum():
        position = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
        seen = classes[position] == labels
        guesses[seen] = _of_classes(votes, overall)[position[seen]]
    return guesses


def _of_classes(votes: NDArray[np.int64], overall: int) -> Values:
    """Return the value that leads in each class by two or more, else the overall one. ``votes`` is K×V."""
    ranked = np.sort(votes, axis=1)
    return np.asarray(np.where(ranked[:, -1] - ranked[:, -2] >= 2, votes.argmax(axis=1), overall), dtype=np.int64)


def _f1_measures(truth: Values, predicted: Values, labels: Values, level: float) -> list[Measurement]:
    """Compute the gain in macro-F1, macro-F1, and the macro-F1 of predictions permuted within classes."""
    table = _Table(truth, predicted, labels)
    intervals = table.intervals({"macro-f1-gain": -1.0, "macro-f1": 0.0, "baseline-macro-f1": 0.0}, level)
    return [
        Measurement(
            name=name,
            value=value,
            low=low,
            high=high,
            level=level,
            n=len(truth),
            direction=Direction.LOWER,
            method=_METHOD,
        )
        for name, (value, low, high) in intervals.items()
    ]


class _Table:
    """Counts of each combination of class, true value and predicted value: C combinations.

    Two of them may be absent from the data: a record of the rarest value that is missed, and one that is hit.

    Args:
        truth: True values, N.
        predicted: Predicted values, N.
        labels: Classes, N.
    """

    def __init__(self, truth: Values, predicted: Values, labels: Values) -> None:
        occurring, often = np.unique(truth, return_counts=True)
        rarest = occurring[often.argmin()]
        elsewhere = predicted[predicted != rarest]
        other = np.bincount(elsewhere).argmax() if len(elsewhere) else rarest + 1
        within = np.bincount(labels[truth == rarest]).argmax()
        truth = np.append(truth, [rarest, rarest])
        predicted, labels = np.append(predicted, [other, rarest]), np.append(labels, [within, within])
        values, numbered = np.unique(np.stack([truth, predicted]), return_inverse=True)
        true, predicted_value = numbered.reshape(2, -1)
        classes, label = np.unique(labels, return_inverse=True)
        cells, cell_of = np.unique(np.stack([label, true, predicted_value], axis=1), axis=0, return_inverse=True)
        self._missed, self._hit = cell_of.ravel()[-2:]
        self._counts = np.bincount(cell_of.ravel()[:-2], minlength=len(cells)).astype(np.float64)
        self._size = size = len(values)
        label, true, predicted_value = cells.T
        # Each column of these sums the combinations that belong together.
        self._hits = _indicator(true, size, true == predicted_value)
        self._true, self._said = _indicator(true, size), _indicator(predicted_value, size)
        # Only values that occur and are predicted in a class can be hit there; with many values, most are not.
        pairs = np.intersect1d(label * size + true, label * size + predicted_value)
        of_class, of_value = pairs // size, pairs % size
        self._classes = _indicator(label, len(classes))
        self._of_class = of_class
        self._true_in, self._said_in = (_position(label * size + column, pairs) for column in (true, predicted_value))
        self._values = _indicator(of_value, size)
        self._widest = max(len(cells), len(classes), len(pairs))

    def scores(self, counts: NDArray[np.float64] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Macro-F1 of the predictions as they are and permuted within classes, for each row of counts (R×C)."""
        counts = self._counts[None, :] if counts is None else counts
        true, predicted = counts @ self._true, counts @ self._said
        records = (counts @ self._classes)[:, self._of_class]
        product = (counts @ self._true_in) * (counts @ self._said_in)
        dealt = np.divide(product, records, out=np.zeros_like(product), where=records > 0) @ self._values
        return _f1(counts @ self._hits, true, predicted), _f1(dealt, true, predicted)

    def intervals(self, leasts: dict[str, float], level: float) -> dict[str, tuple[float, float, float]]:
        """Compute value, lower and upper end of the metrics, which lie between their ``leasts`` and 1.

        A record of the rarest value is added, which is missed for the lower end and hit for the upper end. It stands
        for what the records did not show, as in Clopper and Pearson's limits of a rate. Bias and variance are those of
        the jackknife, and the distribution is the Beta distribution with this mean and variance.
        """
        values = {name: float(value[0]) for name, value in self._measure(self._counts[None, :]).items()}
        ends: dict[str, list[float]] = {name: [] for name in leasts}
        for cell, share in ((self._missed, (1 - level) / 2), (self._hit, (1 + level) / 2)):
            counts = self._counts.copy()
            counts[cell] += 1
            whole = self._measure(counts[None, :])
            n, there = counts.sum(), np.flatnonzero(counts)
            size = max(1, _NUMBERS_AT_ONCE // self._widest)
            parts = []
            for start in range(0, len(there), size):
                chosen = there[start : start + size]
                without = np.repeat(counts[None, :], len(chosen), axis=0)
                without[np.arange(len(chosen)), chosen] -= 1
                parts.append(self._measure(without))
            for name, least in leasts.items():
                value = whole[name][0]
                shift = np.concatenate([part[name] for part in parts]) - value
                variance = (n - 1) / n * float(counts[there] @ shift**2)
                # With few records, permuted predictions hit too often: a prediction may return to its own record.
                centre = np.clip(value - (n - 1) / n * float(counts[there] @ shift), least, 1.0)
                span = 1 - least
                # The correction is an estimate itself, so the wider of the ends with and without it counts.
                both = (np.array([value, centre]) - least) / span
                farther = rates.compute_beta_quantile(both, variance / span**2, share)
                ends[name].append(least + span * float(farther.min() if share < 0.5 else farther.max()))
        return {
            name: (value, max(leasts[name], min(ends[name][0], value)), min(1.0, max(ends[name][1], value)))
            for name, value in values.items()
        }

    def _measure(self, counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        value, dealt = self.scores(counts)
        return {"macro-f1-gain": value - dealt, "macro-f1": value, "baseline-macro-f1": dealt}


def _indicator(
    column: Values, columns: int, chosen: NDArray[np.bool_] | None = None
) -> NDArray[np.float64] | scipy.sparse.csr_array:
    """C×columns with a 1 in each (chosen) row."""
    rows = np.arange(len(column)) if chosen is None else np.flatnonzero(chosen)
    if len(column) * columns <= _DENSE:
        dense = np.zeros((len(column), columns))
        dense[rows, column[rows]] = 1
        return dense
    return scipy.sparse.csr_array((np.ones(len(rows)), (rows, column[rows])), shape=(len(column), columns))


def _position(column: Values, pairs: Values) -> NDArray[np.float64] | scipy.sparse.csr_array:
    """C×pairs with a 1 where a combination belongs to a pair."""
    at = np.searchsorted(pairs, column).clip(max=max(len(pairs) - 1, 0))
    chosen = pairs[at] == column if len(pairs) else np.zeros(len(column), dtype=bool)
    return _indicator(at, len(pairs), chosen)


def _f1(hits: NDArray[np.float64], true: NDArray[np.float64], predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Macro-F1 of each row, over the values that occur in it; all R×V."""
    sums = true + predicted
    f1 = np.divide(2 * hits, sums, out=np.zeros_like(hits), where=sums > 0)
    present = true > 0
    return np.asarray((f1 * present).sum(axis=1) / present.sum(axis=1))
