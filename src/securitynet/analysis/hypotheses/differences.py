"""Differences: of two quantities of the same models, of one quantity between groups, and between numbers of epochs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import frames, resampling, statistics
from securitynet.analysis.hypotheses.cases import drop_unmeasured
from securitynet.analysis.hypotheses.tested import (
    Test,
    Tested,
    bound_difference,
    list_words,
    make_unresolved,
    name_units,
)
from securitynet.analysis.resampling import Floats
from securitynet.analysis.statistics import Estimate


def compare_values(first: str, second: str) -> Test:
    """A test of the mean of ``second - first`` over models that have both; the values lie in [0, 1]."""

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, first, second)
        a, b = rows[first].to_numpy(float), rows[second].to_numpy(float)
        estimate = statistics.estimate_paired_difference(a, b, clusters=frames.find_families(rows), level=level)
        return Tested(bound_difference(estimate), name_datasets(rows))

    return test


def compare_relative(first: str, second: str) -> Test:
    """A test of the mean over models of ``second / first - 1``."""

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, first, second)
        change = _relative(rows, first, second)
        estimate = statistics.estimate_paired_difference(
            np.zeros(len(rows)), change, clusters=frames.find_families(rows), level=level
        )
        return Tested(estimate, name_datasets(rows))

    return test


def compare_groups(quantity: str, column: str, first: str, second: str, *, shared: str | None = None) -> Test:
    """A test of the difference between the means of two groups of models, second minus first.

    Args:
        quantity: Column of the quantity.
        column: Column that defines the groups.
        first: Its value in the first group.
        second: Its value in the second group.
        shared: A column of which only values count that both groups have: like is compared with like.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, quantity)
        groups = [rows[rows[column] == name] for name in (first, second)]
        label = ""
        if shared is not None:
            common = set(groups[0][shared].dropna()) & set(groups[1][shared].dropna())
            if not common and all(map(len, groups)):
                return make_unresolved(f"{first} and {second} models have no {shared} in common")
            groups = [group[group[shared].isin(common)] for group in groups]
            label = f"{name_datasets(rows)} ({list_words(sorted(map(str, common)))})"
        lacking = [name for name, group in zip((first, second), groups, strict=True) if len(group) < 2]
        if lacking:
            return make_unresolved(
                f"fewer than two models of {column.replace('_', ' ')} {list_words(lacking)}", len(rows)
            )
        values = [group[quantity].to_numpy(float) for group in groups]
        clusters = frames.find_families(groups[0]), frames.find_families(groups[1])
        estimate = statistics.group_difference(values[0], values[1], clusters=clusters, level=level)
        return Tested(bound_difference(estimate), label or name_datasets(pandas.concat(groups)))

    return test


def compare_groups_relative(first: str, second: str, column: str, one: str, other: str) -> Test:
    """A test of the difference between two groups' mean relative changes ``second / first - 1``, other minus one.

    Args:
        first: Name of a quantity.
        second: Name of the quantity that it becomes.
        column: Column whose values are the groups.
        one: The first group.
        other: The second group.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, first, second)
        return compare_groups("_change", column, one, other)(rows.assign(_change=_relative(rows, first, second)), level)

    return test


def compare_groups_adjusted(quantity: str, covariate: str, words: str, column: str, first: str, second: str) -> Test:
    """A test of the difference between two groups at equal values of a covariate, second minus first.

    The difference of the means less the slope, common to both groups, times the difference of the covariate's means
    (analysis of covariance). Models count whose covariate lies in the range of both groups.

    Args:
        quantity: Column of the quantity.
        covariate: Column.
        words: What the covariate is.
        column: Column that defines the groups.
        first: Its value in the first group.
        second: Its value in the second group.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, quantity, covariate)
        rows = rows[rows[column].isin([first, second])]
        ends = rows.groupby(column)[covariate].agg(["min", "max"])
        if len(ends) < 2:
            missing = str(wide["missing_clusters"].iloc[0]) if "missing_clusters" in wide else ""
            return make_unresolved(missing or f"no models of one of {first} and {second}")
        low, high = ends["min"].max(), ends["max"].min()
        rows = rows[rows[covariate].between(low, high)]
        in_second = (rows[column] == second).to_numpy(bool)
        if min(in_second.sum(), (~in_second).sum()) < 2:
            return make_unresolved("the two groups have no range of the covariate in common", len(rows))
        y, x = rows[quantity].to_numpy(float), rows[covariate].to_numpy(float)

        def statistic(weights: Floats) -> Floats:
            return _adjusted(y, x, in_second, weights)

        jackknife = resampling.jackknife(statistic, len(rows), frames.find_families(rows), [in_second, ~in_second])
        interval = jackknife.interval(level)
        estimate = Estimate(jackknife.value, *interval, jackknife.beyond_zero(), len(rows), jackknife.clusters,
                         f"analysis of covariance, {jackknife.how}")  # fmt: skip
        return Tested(bound_difference(estimate), f"for {words} between {low:.3f} and {high:.3f}")

    return test


def compare_all_groups(quantity: str, column: str, match: Sequence[str] = ()) -> Test:
    """A test whether all groups have the same mean: the largest absolute difference between two of them.

    The interval is the widest of the differences', each at a level that is adjusted for their number.

    Args:
        quantity: Column of the quantity.
        column: Column that defines the groups; models of unknown group don't count.
        match: Columns that both models of a pair must share, such as dataset, epochs and seed; then the differences
            are taken within what they share, and the units are the pairs, over all differences.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, quantity, column)
        if match:
            parts = {str(name): part for name, part in rows.groupby(column, sort=True)}
        else:
            parts = {str(name): part for name, part in rows.groupby(column, sort=True) if len(part) > 1}
        pairs = list(combinations(parts, 2))
        if not pairs:
            return make_unresolved(f"fewer than two values of {column.replace('_', ' ')}", len(rows))
        strict = 1 - (1 - level) / len(pairs)
        differences: dict[tuple[str, str], Estimate] = {}
        for one, other in pairs:
            made = _pair(parts[one], parts[other], quantity, match, strict)
            if made.resolved and np.isfinite(made.low):
                differences[one, other] = made
        if not differences:
            return make_unresolved(f"no two values of {column.replace('_', ' ')} can be compared", len(rows))
        widest = max(differences, key=lambda pair: abs(differences[pair].value))
        low = max(max(0.0, pair.low, -pair.high) for pair in differences.values())
        unknown = len(pairs) - len(differences)
        # What can't be compared may differ by anything.
        high = 1.0 if unknown else max(max(abs(pair.low), abs(pair.high)) for pair in differences.values())
        value = abs(differences[widest].value)
        notes = (f"{unknown} of {len(pairs)} differences can't be computed.",) if unknown else ()
        method = f"largest of {len(differences)} differences of means, {differences[widest].method}"
        n = sum(pair.n for pair in differences.values()) if match else len(rows)
        estimate = bound_difference(Estimate(value, min(low, value), high, None, n, None, method))
        label = f"({widest[0]} and {widest[1]})"
        if match:
            return Tested(name_units(estimate, "pairs"), label, notes=notes, units="pairs")
        return Tested(estimate, label, notes=notes)

    return test


def _pair(
    one: pandas.DataFrame, other: pandas.DataFrame, quantity: str, match: Sequence[str], level: float
) -> Estimate:
    """The difference of two groups' means, in whatever both share."""
    if not match:
        clusters = frames.find_families(one), frames.find_families(other)
        values = one[quantity].to_numpy(float), other[quantity].to_numpy(float)
        return statistics.group_difference(*values, clusters=clusters, level=level)
    keys = [part.assign(**{name: part[name].fillna("") for name in match}) for part in (one, other)]
    means = [part.groupby([*match])[quantity].mean() for part in keys]
    both = pandas.concat(means, axis=1, join="inner").to_numpy(float)
    return statistics.estimate_paired_difference(both[:, 0], both[:, 1], level=level)


def _adjusted(y: Floats, x: Floats, in_second: NDArray[np.bool_], weights: Floats) -> Floats:
    """The difference of means at equal x, for weights B×N."""
    first, second = weights * ~in_second, weights * in_second
    with np.errstate(invalid="ignore", divide="ignore"):  # a group of which nothing is left
        spread = _products(x, x, first) + _products(x, x, second)
        slope = (_products(x, y, first) + _products(x, y, second)) / np.where(spread > 0, spread, np.inf)
        difference_y = resampling.average_weighted(y, second) - resampling.average_weighted(y, first)
        return np.asarray(
            difference_y - slope * (resampling.average_weighted(x, second) - resampling.average_weighted(x, first))
        )


def _products(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Sums of the products of two quantities' deviations from their weighted means, B."""
    of_a, of_b = (values - resampling.average_weighted(values, weights)[:, None] for values in (a, b))
    return np.asarray((weights * of_a * of_b).sum(axis=1))


def _relative(rows: pandas.DataFrame, first: str, second: str) -> Floats:
    return np.asarray(rows[second].to_numpy(float) / rows[first].to_numpy(float) - 1)


def name_datasets(rows: pandas.DataFrame) -> str:
    """``on CIFAR-10 and SVHN``: the datasets of some models, in words."""
    names = sorted(rows["dataset"].dropna().astype(str).unique())
    return f"on {list_words(names)}" if names else ""
