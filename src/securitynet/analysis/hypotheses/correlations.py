"""Correlations of two quantities over models: within datasets, pooled over them, and between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import frames, resampling, statistics
from securitynet.analysis.hypotheses.cases import drop_unmeasured
from securitynet.analysis.hypotheses.tested import Test, Tested, make_unresolved, name_units
from securitynet.analysis.simpson import describe_mixed_signs

Kind = Literal["pearson", "spearman"]
Estimand = Literal["within", "pooled"]

FEWEST_DATASETS = 4


def correlate(
    x: str, y: str, kind: Kind = "pearson", estimand: Estimand = "within", groups: Sequence[str] = ("dataset",)
) -> Test:
    """A test of a correlation, leaving out whole families.

    Both estimands are computed. **Within** datasets, values are centred in each; **pooled**, they are not, so that
    differences between datasets count, and two quantities may go together although they go against each other in
    every dataset. The one that the claim is about decides, the other stands beside it. As models of one dataset are no
    independent evidence of a relation between datasets, a pooled correlation decides only if the relation is found
    within the datasets too, or over datasets as the units.

    Args:
        x: Column.
        y: Column.
        kind: Pearson's or Spearman's.
        estimand: Which of them the claim is about.
        groups: Columns that together define the groups.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, x, y)
        if rows.empty:
            return make_unresolved(f"no model has both {x.replace('_', ' ')} and {y.replace('_', ' ')}")
        a, b = rows[x].to_numpy(float), rows[y].to_numpy(float)
        names = rows[[*groups]].astype(str).agg(" × ".join, axis=1).to_numpy(object)
        families = frames.find_families(rows)
        pooled = statistics.estimate_correlation(a, b, kind=kind, clusters=families, level=level)
        count = len(set(names))
        if count < 2:
            return Tested(pooled, f"on {names[0]}")
        within = statistics.estimate_correlation(a, b, kind=kind, clusters=families, strata=names, level=level)
        what = f"{groups[0]}s" if len(groups) == 1 else f"groups of equal {' and '.join(groups)}"
        labels = f"within {count} {what}", f"pooled over {count} {what}"
        mixed = describe_mixed_signs(_by_group(a, b, names, kind), pooled.value)
        notes = (mixed,) if mixed else ()
        if estimand == "within":
            return Tested(within, labels[0], ((labels[1], pooled),), notes=notes)
        confirmed_by = [within]
        if count >= resampling.FEWEST_CLUSTERS:
            confirmed_by.append(statistics.estimate_correlation(a, b, kind=kind, clusters=names, level=level))
        return Tested(pooled, labels[1], ((labels[0], within),), tuple(confirmed_by), notes)

    return test


def correlate_datasets(x: str, y: str, kind: Kind = "spearman") -> Test:
    """A test of the correlation over datasets, of what is a property of a dataset with the mean of its models.

    Args:
        x: Column whose values are equal for all models of a dataset.
        y: Column of a quantity.
        kind: Pearson's or Spearman's.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = drop_unmeasured(wide, x, y)
        means = rows.groupby("dataset")[[x, y]].mean()
        if len(means) < FEWEST_DATASETS:
            few = f"too few datasets: {len(means)}, where {FEWEST_DATASETS} are needed"
            return make_unresolved(few, len(means))
        estimate = statistics.estimate_correlation(
            means[x].to_numpy(float), means[y].to_numpy(float), kind=kind, level=level
        )
        note = f"The {len(rows)} models are of {len(means)} datasets, which are the units."
        return Tested(
            name_units(estimate, "datasets"), "over datasets", notes=(note,), fewest=FEWEST_DATASETS, units="datasets"
        )

    return test


def correlate_in_cluster(name: str, x: str, y: str) -> Test:
    """A test of the correlation in one cluster of security models (`cases.add_clusters`).

    Args:
        name: ``low`` or ``high``.
        x: Column.
        y: Column.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = wide[wide["cluster"] == name]
        if rows.empty:
            return make_unresolved(str(wide["missing_clusters"].iloc[0]) or f"no {name}-performing security model")
        return correlate(x, y)(rows, level)

    return test


def _by_group(
    a: NDArray[np.float64], b: NDArray[np.float64], names: NDArray[np.object_], kind: Kind
) -> list[tuple[str, float]]:
    """The correlation in each group that has enough models for one."""
    return [
        (name, resolved)
        for name in sorted(set(names))
        if np.isfinite(resolved := _plain(a[names == name], b[names == name], kind))
    ]


def _plain(a: NDArray[np.float64], b: NDArray[np.float64], kind: Kind) -> float:
    if len(a) < statistics.FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    series = pandas.Series(a)
    return float(series.corr(pandas.Series(b), method=kind))
