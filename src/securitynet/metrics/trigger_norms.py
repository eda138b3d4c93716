"""What the norms of a model's triggers say: Neural Cleanse's measurements, and the evidence behind one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import backdoor_verdict, low_outliers, outlier_blocks, rates
from securitynet.metrics.backdoor_verdict import THRESHOLD, BackdoorEvidence
from securitynet.metrics.outlier_blocks import OutlierBlock, find_outlier_block
from securitynet.records import Direction, Measurement

Values = NDArray[np.float64]

RESAMPLES = 2000

SEARCH_RESAMPLES = 100
"""Resamples of the starting points of a search."""

FEWEST_FOR_RULE = 4
"""Converged labels without which the rule's median deviation means nothing."""

TINY = 1e-9
"""Stands for a norm of 0, which has no logarithm."""


@dataclass(frozen=True, eq=False)
class SearchedNorms:
    """Norms of the triggers of N labels, and what is known about them.

    Attributes:
        norms: Sums of the masks, N: the smallest of all searches; infinite where no trigger worked (right-censored).
        pixels: Of an image: what a norm is a share of.
        repeats: Norms of each of R searches from other starting points, R×N; empty if they are not known.
        sampled: Labels that are a random sample of all, N; None if all were searched.
        population: Number of labels of the model, where only some were searched; None otherwise.
        reference: Norms of M clean models, from one search each, M×N; empty if there are none.
        success: Share of fresh images of other classes that the trigger of the smallest norm sends to its label; None
            if it was not tried.
        settled: Labels whose search went on until the norm was close to its minimum, N; None if that is not known.
    """

    norms: Values
    pixels: int
    repeats: Sequence[Values] = ()
    sampled: NDArray[np.bool_] | None = None
    population: int | None = None
    reference: Sequence[Values] = ()
    success: float | None = None
    settled: NDArray[np.bool_] | None = None

    @property
    def bulk(self) -> NDArray[np.bool_]:
        """Labels from which median and spread are taken: of the sample, and converged."""
        chosen = np.isfinite(self.norms)
        return chosen if self.sampled is None else chosen & self.sampled

    def test(self, norms: Values | None = None, level: float = 0.95) -> OutlierBlock | None:
        """The test for blocks of outliers, of the norms of all searches or of those given."""
        values = self.norms if norms is None else norms
        return find_outlier_block(
            np.maximum(values, TINY), sampled=self.sampled, population=self.population, level=level
        )


def measure_trigger_norms(searched: SearchedNorms, *, level: float = 0.95, seed: int = 0) -> list[Measurement]:
    """All that the norms say about one model.

    Args:
        searched: The norms.
        level: Confidence level of the intervals, in (0, 1).
        seed: Of the bootstrap.

    Returns:
        The ``p-value`` of the test for blocks of outliers and, with clean models, ``reference-p-value``; the rule's
        ``anomaly-index`` and ``flagged-labels``, and ``rule-false-positives``; ``smallest-trigger`` and
        ``smallest-to-median``; ``detectable-ratio``; ``converged`` and, if it is known, ``settled``. Those that cannot
        be computed have no value, and a note that says why.
    """
    norms, converged = searched.norms, np.isfinite(searched.norms)
    measured = [_measure_p_value(searched, level, seed)]
    if len(searched.reference):
        measured.append(_measure_reference(searched, level))
    measured += _measure_rule(searched, level, seed)
    if searched.bulk.sum() >= FEWEST_FOR_RULE:
        labels = len(norms) if searched.population is None else int(searched.bulk.sum())
        measured.append(_measure_rule_false_positives(labels, level))
    if converged.any():
        measured += _measure_smallest(searched, level)
    limit = outlier_blocks.find_detection_limit(
        np.maximum(norms, TINY), sampled=searched.sampled, population=searched.population
    )
    if limit is not None:
        measured.append(
            _exact("detectable-ratio", limit, int(converged.sum()), Direction.HIGHER, level).with_notes(
                "A label is named an outlier only if its norm is below this share of the median."
            )
        )
    measured.append(rates.rate("converged", int(converged.sum()), len(norms), direction=Direction.HIGHER, level=level))
    if searched.settled is not None and converged.any():
        counts = int(searched.settled[converged].sum()), int(converged.sum())
        measured.append(
            rates.rate("settled", *counts, direction=Direction.HIGHER, level=level).with_notes(
                "In a longer search the norms of the others might have fallen further."
            )
        )
    return measured


def collect_evidence(searched: SearchedNorms, measured: Sequence[Measurement]) -> BackdoorEvidence:
    """Collect the measurements that the verdict is decided by.

    Args:
        searched: The norms.
        measured: What `measure_trigger_norms` returned for them.
    """
    by_name = {measurement.name: measurement for measurement in measured}
    p_value, reference = by_name["p-value"], by_name.get("reference-p-value")
    settled = by_name.get("settled")
    accused = find_accused(searched)
    index = _compute_indices(searched).max(initial=-np.inf) if searched.bulk.sum() >= FEWEST_FOR_RULE else None
    converged = np.isfinite(searched.norms).any()
    lowest = {int(np.argmin(one)) for one in searched.repeats if np.isfinite(one).any()}
    test = searched.test()
    return BackdoorEvidence(
        p_value=p_value.value,
        p_low=p_value.low,
        outliers=0 if test is None else len(test.positions),
        reference_p=None if reference is None else reference.value,
        references=len(searched.reference),
        anomaly_index=None if index is None else float(index),
        ratio=compute_ratio(searched, accused) if converged else None,
        stable=lowest <= set(accused),
        success=searched.success,
        settled=None if settled is None else settled.value,
    )


def find_accused(searched: SearchedNorms) -> list[int]:
    """Positions of the labels that the tests would accuse, ascending by norm.

    These are the outliers; where there is none, the label with the smallest norm, if any converged.
    """
    if not np.isfinite(searched.norms).any():
        return []
    test = searched.test()
    return list(test.positions) if test is not None and test.positions else [int(searched.norms.argmin())]


def compute_ratio(searched: SearchedNorms, accused: Sequence[int]) -> float | None:
    """The smallest norm as a share of the median of the other labels' norms, the accused ones left out.

    Labels without a working trigger count as larger than all others, so the median may be infinite, and the share 0.

    Args:
        searched: The norms; at least one is finite.
        accused: Positions.
    """
    others = np.ones(len(searched.norms), bool) if searched.sampled is None else searched.sampled.copy()
    others[list(accused)] = False
    if not others.any():
        return None
    finite = searched.norms[np.isfinite(searched.norms)]
    middle = float(np.median(np.where(np.isfinite(searched.norms), searched.norms, searched.pixels)[others]))
    return min(1.0, float(finite.min()) / max(middle, TINY))


def find_outliers(norms: Values, sampled: NDArray[np.bool_] | None = None, population: int | None = None) -> list[int]:
    """Positions of the labels that the test for blocks of outliers names at 5%, ascending by norm.

    Args:
        norms: N; infinite where no trigger worked.
        sampled: Labels that are a random sample of all, N; None if all were searched.
        population: Number of labels of the model, where only some were searched.
    """
    test = SearchedNorms(norms, 1, sampled=sampled, population=population).test()
    return [] if test is None else list(test.positions)


def _compute_indices(searched: SearchedNorms) -> Values:
    """Anomaly indices of the converged labels."""
    converged = np.isfinite(searched.norms)
    return low_outliers.compute_anomaly_indices(searched.norms[converged], searched.norms[searched.bulk])


def _measure_p_value(searched: SearchedNorms, level: float, seed: int) -> Measurement:
    """The p-value of the norms of all searches; its interval covers what other starting points would have given.

    Two things vary: the finite number of simulated sets, and the search itself. For the second, the starting points are
    resampled label by label, and the p-values of each search alone are added, because a resample of a few searches
    can only repeat the norms that it has.
    """
    test = searched.test(level=level)
    if test is None:
        converged = int(np.isfinite(searched.norms).sum())
        note = (
            f"a trigger was found for {converged} of {len(searched.norms)} labels; the test needs at least "
            f"{outlier_blocks.FEWEST}"
        )
        return _none("p-value", converged, Direction.HIGHER, level, note)
    low, high = test.low, test.high
    method = f"exact for {outlier_blocks.SETS:,} simulated sets of norms"
    if len(searched.repeats) > 1:
        table = np.stack(list(searched.repeats))
        generator = np.random.default_rng(seed)
        chosen = generator.integers(0, len(table), (SEARCH_RESAMPLES, *table.shape))
        resampled = [np.take_along_axis(table, rows, axis=0).min(axis=0) for rows in chosen]
        p_values = [other.p_value for norms in resampled if (other := searched.test(norms)) is not None]
        ends = (
            rates.compute_percentile_interval(np.array(p_values), level) if p_values else (test.p_value, test.p_value)
        )
        alone = [other.p_value for norms in table if (other := searched.test(norms)) is not None]
        low, high = min([low, ends[0], *alone]), max([high, ends[1], *alone])
        method += f", widened to what {len(table)} starting points give, alone and resampled"
    else:
        method += "; one starting point, so the search's own variation is not in it"
    shape = f"weight of the normal shape {test.normal:.2f}, of the lognormal {1 - test.normal:.2f}"
    return Measurement(
        name="p-value",
        value=test.p_value,
        low=min(low, test.p_value),
        high=max(high, test.p_value),
        level=level,
        n=len(searched.norms),
        direction=Direction.HIGHER,
        method=method,
        note=f"Chance that a clean model has a block of norms as far below the others; {shape}.",
    )


def _measure_reference(searched: SearchedNorms, level: float) -> Measurement:
    """The rank among clean models; each model counts with one search, the first, so that all are treated alike."""
    own = searched.repeats[0] if len(searched.repeats) else searched.norms
    value = low_outliers.compare_with_reference(own, searched.reference)
    models = len(searched.reference)
    if value is None:
        return _none("reference-p-value", models, Direction.HIGHER, level, "the clean models share no label")
    low, high = map(float, rates.compute_clopper_pearson(round(value * (models + 1)), models + 1, level))
    return Measurement(
        name="reference-p-value",
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=models,
        direction=Direction.HIGHER,
        method=f"{rates.CLOPPER_PEARSON}, rank among {models + 1} models",
        note=f"{models} clean models were trained and searched in the same way.",
    )


def _measure_rule(searched: SearchedNorms, level: float, seed: int) -> list[Measurement]:
    """The anomaly index of the smallest norm and the number of labels flagged; the other labels are resampled."""
    names = ("anomaly-index", "flagged-labels")
    norms = searched.norms[np.isfinite(searched.norms)]
    bulk = searched.norms[searched.bulk]
    if len(bulk) < FEWEST_FOR_RULE:
        note = f"a trigger was found for {len(norms)} labels; the rule needs at least {FEWEST_FOR_RULE}"
        return [_none(name, len(norms), Direction.LOWER, level, note) for name in names]
    indices = _compute_indices(searched)
    largest, count = float(indices.max()), int((indices > THRESHOLD).sum())
    generator = np.random.default_rng(seed)
    drawn = bulk[generator.integers(0, len(bulk), (RESAMPLES, len(bulk)))]
    median = np.median(drawn, axis=1, keepdims=True)
    deviation = low_outliers.CONSISTENCY * np.median(np.abs(drawn - median), axis=1, keepdims=True)
    usable = deviation[:, 0] > 0
    if not np.isfinite(largest) or not usable.any():
        note = "more than half of the norms are equal, so that their median absolute deviation is 0"
        return [_none(name, len(norms), Direction.LOWER, level, note) for name in names]
    resampled = ((median - norms) / np.where(deviation > 0, deviation, 1))[usable]
    ends = (resampled.max(axis=1), (resampled > THRESHOLD).sum(axis=1).astype(np.float64))
    measurements = []
    for name, value, values in zip(names, (largest, float(count)), ends, strict=True):
        low, high = rates.compute_percentile_interval(values, level)
        measurements.append(
            Measurement(
                name=name,
                value=value,
                low=min(low, value),
                high=max(high, value),
                level=level,
                n=len(norms),
                direction=Direction.LOWER,
                method=f"bootstrap over the labels behind the median, {RESAMPLES} resamples",
            )
        )
    return measurements


def _measure_rule_false_positives(labels: int, level: float) -> Measurement:
    """Measure how often the rule flags a clean model with this number of labels, if norms are normal draws."""
    counts = low_outliers.count_rule_false_positives(labels, THRESHOLD)
    measured = rates.rate("rule-false-positives", *counts, direction=Direction.LOWER, level=level)
    return measured.with_notes(f"Share of sets of {labels} independent normal draws that the rule flags.")


def _measure_smallest(searched: SearchedNorms, level: float) -> list[Measurement]:
    """The smallest norm as a share of the image, and of the median of the labels that are not accused."""
    least = int(searched.norms.argmin())
    smallest = float(searched.norms[least])
    alone = [float(repeat[least]) for repeat in searched.repeats if np.isfinite(repeat[least])]
    accused = find_accused(searched)
    ratio = compute_ratio(searched, accused)
    measured = []
    scales = {"smallest-trigger": 1 / searched.pixels}
    if ratio is not None:
        scales["smallest-to-median"] = ratio / max(smallest, TINY)
    for name, scale in scales.items():
        value = min(1.0, smallest * scale)
        ends = [min(1.0, norm * scale) for norm in alone]
        method = f"range of {len(alone)} searches" if len(alone) > 1 else "one search: no interval"
        measured.append(
            Measurement(
                name=name,
                value=value,
                low=min([value, *ends]),
                high=max([value, *ends]),
                level=level,
                n=max(1, len(alone)),
                direction=Direction.HIGHER,
                method=method,
            )
        )
    return measured


def _none(name: str, n: int, direction: Direction, level: float, note: str) -> Measurement:
    return Measurement(name=name, value=None, n=n, direction=direction, level=level, method="none", note=note)


def _exact(name: str, value: float, n: int, direction: Direction, level: float) -> Measurement:
    """A value that nothing random entered."""
    return Measurement(
        name=name, value=value, low=value, high=value, level=level, n=n, direction=direction, method="computed exactly"
    )


def measure_verdict(
    evidence: BackdoorEvidence, sentence: str, label: int | None, *, level: float = 0.95
) -> list[Measurement]:
    """The verdict as a number that a policy can bound, and the label it is about.

    Args:
        evidence: What it rests on.
        sentence: The verdict in words, which becomes its note.
        label: Number of the label with the smallest norm; None if no label converged.
        level: Confidence level that the records state; neither value has an interval of its own.
    """
    rank = backdoor_verdict.decide_verdict(evidence).rank
    verdict = _exact("verdict", float(rank), 1, Direction.LOWER, level).with_notes(sentence)
    if label is None:
        return [verdict, _none("suspect-label", 0, Direction.LOWER, level, "no label has a working trigger")]
    note = "Number of the class with the smallest trigger, from 0; it means nothing where nothing was found."
    return [verdict, _exact("suspect-label", float(label), 1, Direction.LOWER, level).with_notes(note)]
