"""Means and shares of models, and ratios of two quantities, each against a stated value."""

from __future__ import annotations

import numpy as np
import pandas

from securitynet.analysis import frames, resampling, statistics
from securitynet.analysis.hypotheses.cases import drop_unmeasured
from securitynet.analysis.hypotheses.differences import name_datasets
from securitynet.analysis.hypotheses.tested import Test, Tested, make_unresolved
from securitynet.analysis.resampling import Floats
from securitynet.analysis.statistics import Estimate
from securitynet.metrics import rates


def average(quantity: str, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Test:
    """A test of the mean over models; of a single model, its own measurement with its interval.

    Args:
        quantity: Column.
        bounds: The least and the largest possible mean.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, quantity)
        if len(rows) == 1:
            row = rows.iloc[0]
            value, low, high = (_number(row.get(name)) for name in (quantity, f"{quantity}_low", f"{quantity}_high"))
            return Tested(Estimate(value, low, high, None, 1, None, "its own interval"), name_datasets(rows))
        estimate = statistics.estimate_mean(
            rows[quantity].to_numpy(float), clusters=frames.find_families(rows), bounds=bounds, level=level
        )
        return Tested(estimate, name_datasets(rows))

    return test


def measure_share(quantity: str, *, above: float | None = None, below: float | None = None) -> Test:
    """A test of the share of models whose value lies above or below a bound.

    The interval is the exact one (Clopper and Pearson's) or the jackknife's over families, the wider ends.

    Args:
        quantity: Column.
        above: Bound.
        below: Bound.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, quantity)
        if rows.empty:
            return make_unresolved("no model was measured")
        values = rows[quantity].to_numpy(float)
        inside = np.ones(len(values), dtype=bool)
        if above is not None:
            inside &= values > above
        if below is not None:
            inside &= values < below
        low, high = map(float, rates.compute_clopper_pearson(int(inside.sum()), len(inside), level))
        over = statistics.estimate_mean(
            inside.astype(float), clusters=frames.find_families(rows), bounds=(0, 1), level=level
        )
        if np.isfinite(over.low):
            low, high = min(low, over.low), max(high, over.high)
        estimate = Estimate(float(inside.mean()), low, high, None, len(inside), over.clusters,
                         "share of models, exact interval or jackknife over families, the wider ends")  # fmt: skip
        return Tested(estimate, f"{int(inside.sum())} of {len(inside)} models {name_datasets(rows)}")

    return test


def compare_means(numerator: str, denominator: str) -> Test:
    """A test of the ratio of two means over the same models, by the jackknife of its logarithm.

    Args:
        numerator: Column.
        denominator: Column.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, numerator, denominator)
        a, b = rows[numerator].to_numpy(float), rows[denominator].to_numpy(float)
        if len(rows) < 2 or a.mean() <= 0 or b.mean() <= 0:
            return make_unresolved("fewer than two models with both", len(rows))

        def statistic(weights: Floats) -> Floats:
            return np.asarray(np.log(resampling.average_weighted(a, weights) / resampling.average_weighted(b, weights)))

        present = [np.ones(len(a), dtype=bool)]
        jackknife = resampling.jackknife(statistic, len(a), frames.find_families(rows), present)
        low, high = (float(np.exp(end)) for end in jackknife.interval(level))
        estimate = Estimate(float(np.exp(jackknife.value)), low, high, None, len(a), jackknife.clusters,
                         f"ratio of means, {jackknife.how}")  # fmt: skip
        return Tested(estimate, name_datasets(rows))

    return test


def average_ratio(numerator: str, denominators: tuple[str, ...]) -> Test:
    """A test of the geometric mean over models of a ratio to the largest of several quantities.

    Args:
        numerator: Column.
        denominators: Columns; each model's largest counts.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        known = [name for name in denominators if wide[name].notna().any()]
        rows = drop_unmeasured(wide, numerator)
        largest = rows[known].max(axis=1) if known else pandas.Series(np.nan, index=rows.index)
        rows = rows.assign(_largest=largest).dropna(subset=["_largest"])
        if len(rows) < 2:
            return make_unresolved("fewer than two models with both", len(rows))
        logs = np.log(rows[numerator].to_numpy(float)) - np.log(rows["_largest"].to_numpy(float))
        estimate = statistics.estimate_mean(logs, clusters=frames.find_families(rows), level=level)
        value, low, high = (float(np.exp(end)) for end in (estimate.value, estimate.low, estimate.high))
        return Tested(
            Estimate(value, low, high, None, estimate.n, estimate.clusters, f"geometric {estimate.method}"),
            name_datasets(rows),
        )

    return test


def count(column: str = "case", *, having: str | None = None, **values: str) -> Test:
    """The number of models, or of distinct values of a column; without an interval.

    Args:
        column: Column.
        having: Quantity that a model must have; by default, models without any count, too.
        values: Column -> value that a model must have.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = wide if having is None else wide[wide[having].notna()]
        for name, value in values.items():
            rows = rows[rows[name] == value]
        number = float(rows[column].nunique())
        return Tested(Estimate(number, np.nan, np.nan, None, len(rows), None, "count"))

    return test


def _number(value: object) -> float:
    return float("nan") if pandas.isna(value) else float(value)  # type: ignore[arg-type, call-overload]
