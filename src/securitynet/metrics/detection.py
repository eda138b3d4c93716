"""Metrics of backdoor detection: verdicts on one model from Neural Cleanse's norms, and rates over many models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import low_outliers, rates, roc
from securitynet.records import Direction, Measurement

THRESHOLD = 2.0
"""Anomaly index above which Neural Cleanse flags a label (Wang et al., 2019, section IV-B)."""

RESAMPLES = 2000

Values = NDArray[np.float64]


def trigger_norms(
    norms: Values,
    *,
    sampled: NDArray[np.bool_] | None = None,
    population: int | None = None,
    pixels: int,
    repeats: Sequence[Values] = (),
    reference: Sequence[Values] = (),
    level: float = 0.95,
    seed: int = 0,
) -> list[Measurement]:
    """Compute both verdicts on one model from the norms of the candidate triggers of its labels.

    Args:
        norms: Sum of the mask for each of N labels; infinite if no trigger exists for a label.
        sampled: Whether each label belongs to the random sample that determines median and spread, N. None for all.
        population: Number of labels of the model, if only some were searched.
        pixels: Number of pixels of an image, of which the smallest norm is a share.
        repeats: Norms of each of several searches, N each.
        reference: Norms of clean models, N each.
        level: Confidence level of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        The calibrated ``p-value`` and, with references, ``reference-p-value``; the rule's ``anomaly-index`` and
        ``flagged-labels``, and ``rule-false-positives``; ``smallest-trigger`` and ``converged``.
    """
    converged = np.isfinite(norms)
    rate = rates.rate("converged", int(converged.sum()), len(norms), direction=Direction.HIGHER, level=level)
    values, among = norms[converged], (np.ones(len(norms), bool) if sampled is None else sampled)[converged]
    if len(values) < low_outliers.FEWEST or among.sum() < low_outliers.FEWEST - 1:
        note = (
            f"only {len(values)} labels have a trigger; the smallest of fewer than {low_outliers.FEWEST} can't be "
            "called an outlier"
        )
        names = {"p-value": Direction.HIGHER, "anomaly-index": Direction.LOWER, "flagged-labels": Direction.LOWER}
        return [*(_none(name, len(values), d, level, note) for name, d in names.items()), rate]
    return [
        _p_value(values, among, population, repeats, level),
        *([_reference_p_value(norms, reference, level)] if reference else []),
        *_rule(values, among, level, seed),
        _false_positives(len(values) if population is None else int(among.sum()), level),
        _smallest(values, converged, repeats, pixels, level),
        rate,
    ]


def suspects(norms: Values, sampled: NDArray[np.bool_], population: int | None, alpha: float = 0.05) -> list[int]:
    """Return the labels that the calibrated test flags, ascending by norm; infinite norms are never flagged.

    Args:
        norms: Norms, N.
        sampled: Whether each label belongs to the random sample, N; None for all.
        population: Number of labels of the model, if only some were searched.
        alpha: Nominal level of the test.
    """
    converged = np.flatnonzero(np.isfinite(norms))
    if len(converged) < low_outliers.FEWEST:
        return []
    values, size = _sample(norms[converged], sampled[converged], population)
    positions = low_outliers.suspects(values, population=size, alpha=alpha)
    if size is not None:
        return [int(converged[norms[converged].argmin()])] if positions else []
    return [int(converged[position]) for position in positions]


def flagged(norms: Values, sampled: NDArray[np.bool_]) -> list[int]:
    """Return the positions of the labels that Neural Cleanse's rule flags, ascending by norm."""
    converged = np.flatnonzero(np.isfinite(norms))
    if not sampled[converged].any():
        return []
    indices = _indices(norms[converged], sampled[converged])
    return [int(converged[i]) for i in np.argsort(norms[converged], kind="stable") if indices[i] > THRESHOLD]


def _sample(norms: Values, sampled: NDArray[np.bool_], population: int | None) -> tuple[Values, int | None]:
    if population is None or sampled.all():
        return norms, None
    least = int(norms.argmin())
    others = np.flatnonzero(sampled)
    return np.concatenate([norms[[least]], norms[others[others != least]]]), population


def _indices(norms: Values, sampled: NDArray[np.bool_]) -> Values:
    """Compute anomaly indices of all values from the median and the deviation of the sampled ones."""
    return low_outliers.indices_among(norms, norms[sampled])


def _p_value(
    norms: Values, sampled: NDArray[np.bool_], population: int | None, repeats: Sequence[Values], level: float
) -> Measurement:
    sample, size = _sample(norms, sampled, population)
    test = low_outliers.low_outlier(sample, population=size, level=level)
    if test is None:  # the sample without the smallest is too small
        return _none("p-value", len(norms), Direction.HIGHER, level, "too few labels")
    low, high, method = test.low, test.high, f"exact for {low_outliers.DRAWS:,} simulated sets of norms"
    if len(repeats) > 1:
        others = []
        for alone in repeats:
            finite = np.isfinite(alone)
            if population is None and finite.sum() >= low_outliers.FEWEST:
                other = low_outliers.low_outlier(alone[finite], level=level)
                others += [] if other is None else [other.p_value]
        low, high = min([low, *others]), max([high, *others])
        method += f", widened to the range of {len(repeats)} searches"
    shape = f"weight of the normal shape {test.normal:.2f}, of the lognormal {1 - test.normal:.2f}"
    return Measurement(
        name="p-value",
        value=test.p_value,
        low=low,
        high=high,
        level=level,
        n=len(norms),
        direction=Direction.HIGHER,
        method=method,
        note=f"Chance of so low a smallest norm in a clean model; {shape}.",
    )


def _reference_p_value(norms: Values, reference: Sequence[Values], level: float) -> Measurement:
    value = low_outliers.against_reference(norms, reference)
    if value is None:
        return _none("reference-p-value", len(reference), Direction.HIGHER, level, "the clean models share no label")
    count = len(reference) + 1
    low, high = map(float, rates.clopper_pearson(round(value * count), count, level))
    return Measurement(
        name="reference-p-value",
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=len(reference),
        direction=Direction.HIGHER,
        method=f"{rates.CLOPPER_PEARSON}, rank among {count} models",
        note=f"{len(reference)} clean models were trained and searched in the same way.",
    )


def _rule(norms: Values, sampled: NDArray[np.bool_], level: float, seed: int) -> list[Measurement]:
    """The anomaly index of the smallest norm and the number of labels flagged; the other labels are resampled."""
    indices = _indices(norms, sampled)
    largest, count = float(indices.max()), int((indices > THRESHOLD).sum())
    generator = np.random.default_rng(seed)
    bulk = norms[sampled]
    drawn = bulk[generator.integers(0, len(bulk), (RESAMPLES, len(bulk)))]
    median = np.median(drawn, axis=1, keepdims=True)
    deviation = low_outliers.CONSISTENCY * np.median(np.abs(drawn - median), axis=1, keepdims=True)
    usable = deviation[:, 0] > 0
    method = f"bootstrap over the labels behind the median, {RESAMPLES} resamples"
    if not np.isfinite(largest) or not usable.any():
        note = "more than half of the norms are equal, so that their median absolute deviation is 0"
        names = ("anomaly-index", "flagged-labels")
        return [_none(name, len(norms), Direction.LOWER, level, note) for name in names]
    resampled = ((median - norms) / np.where(deviation > 0, deviation, 1))[usable]
    measurements = []
    for name, value, values in (
        ("anomaly-index", largest, resampled.max(axis=1)),
        ("flagged-labels", float(count), (resampled > THRESHOLD).sum(axis=1).astype(np.float64)),
    ):
        low, high = rates.percentile_interval(values, level)
        measurements.append(
            Measurement(
                name=name,
                value=value,
                low=min(low, value),
                high=max(high, value),
                level=level,
                n=len(norms),
                direction=Direction.LOWER,
                method=method,
            )
        )
    return measurements


def _false_positives(labels: int, level: float) -> Measurement:
    """Compute how often the rule flags a clean model with this many labels if their norms are normal draws."""
    counts = low_outliers.rule_false_positives(labels, THRESHOLD)
    measured = rates.rate("rule-false-positives", *counts, direction=Direction.LOWER, level=level)
    return measured.with_notes(f"Share of sets of {labels} independent normal draws that the rule flags.")


def _smallest(
    norms: Values, converged: NDArray[np.bool_], repeats: Sequence[Values], pixels: int, level: float
) -> Measurement:
    """The smallest norm as a share of the image."""
    least = int(np.flatnonzero(converged)[norms.argmin()])
    alone = [repeat[least] / pixels for repeat in repeats if np.isfinite(repeat[least])]
    value = min(1.0, float(norms.min()) / pixels)
    method = f"range of {len(alone)} searches" if len(alone) > 1 else "one search: no interval"
    return Measurement(
        name="smallest-trigger",
        value=value,
        low=min([value, *alone]),
        high=max([value, *alone]),
        level=level,
        n=max(1, len(alone)),
        direction=Direction.HIGHER,
        method=method,
    )


def overlap(mask: NDArray[np.floating], trigger: NDArray[np.floating], *, level: float = 0.95) -> Measurement:
    """Compare a recovered mask with the true trigger: intersection over union of their pixels.

    Args:
        mask: H×W in [0, 1]; pixels of at least half its largest value count.
        trigger: H×W in [0, 1]; pixels above 0 count.
        level: Of the exact interval over the union's pixels.
    """
    here, there = mask >= max(0.5 * float(mask.max()), 1e-6), trigger > 0
    union = int((here | there).sum())
    return rates.rate(
        "localisation-iou", int((here & there).sum()), max(1, union), direction=Direction.HIGHER, level=level
    )


def population(
    scores: Values, backdoored: NDArray[np.bool_], threshold: float, *, level: float = 0.95
) -> list[Measurement]:
    """Evaluate a detector over a population of models: AUC, and both rates at a threshold, with exact intervals.

    Args:
        scores: Scores of N models; higher means "more likely a backdoor" (an anomaly index, or one minus a p-value).
        backdoored: Whether each model has a backdoor, N.
        threshold: Scores of at least this flag a model.
        level: Confidence level.
    """
    clean, positive = scores[~backdoored], scores[backdoored]
    measurements = []
    if len(clean) and len(positive):
        auc = roc.auc(positive, clean, level=level)
        measurements.append(auc.model_copy(update={"direction": Direction.HIGHER}))
    if len(clean):
        hits = int((clean >= threshold).sum())
        measurements.append(rates.rate("false-positive-rate", hits, len(clean), direction=Direction.LOWER, level=level))
    if len(positive):
        hits = int((positive >= threshold).sum())
        measurements.append(
            rates.rate("true-positive-rate", hits, len(positive), direction=Direction.HIGHER, level=level)
        )
    return measurements


def _none(name: str, n: int, direction: Direction, level: float, note: str) -> Measurement:
    return Measurement(name=name, value=None, n=n, direction=direction, level=level, method="none", note=note)
