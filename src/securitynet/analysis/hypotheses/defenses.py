"""Targets with a defense against the same targets without it."""

from __future__ import annotations

import numpy as np
import pandas

from securitynet.analysis import statistics
from securitynet.analysis.figures.defenses import pair_defenses
from securitynet.analysis.hypotheses.differences import name_datasets
from securitynet.analysis.hypotheses.tested import Test, Tested, bound_difference, make_unresolved, name_units

UNITS = "undefended targets"
"""What is left out one by one, with all targets that are compared with it."""


def compare_with_undefended(quantity: str, defense: str, *, relative: bool = False) -> Test:
    """A test of the mean difference between targets with and without a defense.

    A target is compared with those of the same dataset, architecture (for a student, its teacher's) and number of
    epochs; with those of its seed, where there are any. Targets that are compared with the same ones are left out
    together, for they share the luck of these.

    Args:
        quantity: Column of the quantity.
        defense: Name of the defense.
        relative: Whether differences are shares of the value without the defense: for quantities whose scale depends
            on the data.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        rows = tabulate_changes(wide, quantity, defense)
        if rows.empty:
            return make_unresolved(f"no target with {defense} and one like it without a defense")
        before, after = rows["_before"].to_numpy(float), rows[quantity].to_numpy(float)
        if relative:
            before, after = np.ones(len(rows)), after / before
        clusters = rows["_original"].to_numpy(object)
        estimate = statistics.estimate_paired_difference(before, after, clusters=clusters, level=level)
        estimate = name_units(estimate if relative else bound_difference(estimate), UNITS)
        return Tested(estimate, name_datasets(rows), units="targets with a defense")

    return test


def compare_defenses(quantity: str, first: str, second: str) -> Test:
    """A test of the difference between what two defenses change, second minus first.

    Args:
        quantity: Column of the quantity.
        first: Name of a defense.
        second: Name of a defense.
    """

    def test(wide: pandas.DataFrame, level: float) -> Tested:
        parts = [tabulate_changes(wide, quantity, name) for name in (first, second)]
        lacking = [name for name, part in zip((first, second), parts, strict=True) if len(part) < 2]
        if lacking:
            return make_unresolved(
                f"fewer than two targets with {' and '.join(lacking)} and their like without a defense"
            )
        shared = set(parts[0]["dataset"]) & set(parts[1]["dataset"])
        parts = [part[part["dataset"].isin(shared)] for part in parts]
        if min(map(len, parts)) < 2:
            return make_unresolved("the two defenses were not tried on the same datasets")
        change = [(part[quantity] - part["_before"]).to_numpy(float) for part in parts]
        clusters = parts[0]["_original"].to_numpy(object), parts[1]["_original"].to_numpy(object)
        estimate = statistics.group_difference(change[0], change[1], clusters=clusters, level=level)
        return Tested(
            name_units(bound_difference(estimate), UNITS),
            name_datasets(pandas.concat(parts)),
            units="targets with a defense",
        )

    return test


def tabulate_changes(wide: pandas.DataFrame, quantity: str, defense: str) -> pandas.DataFrame:
    """The targets with a defense that have their like without it, with its value, ``_before``, and ``_original``.

    Args:
        wide: One row per case.
        quantity: Column of the quantity.
        defense: Name of the defense.
    """
    cases = pair_defenses(wide, defense)
    cases = cases[cases[quantity].notna()]
    key = ["dataset", "pair", "_epochs"]
    cases = cases.assign(_epochs=pandas.to_numeric(cases["epochs"]).fillna(-1), _seed=cases["seed"].fillna(-1))
    plain, with_it = cases[cases["defense"].isna()], cases[cases["defense"].notna()]
    means = plain.groupby(key)[quantity].mean()
    same = plain.groupby([*key, "_seed"])[quantity].mean()
    before, original = [], []
    for one in with_it[[*key, "_seed"]].itertuples(index=False, name=None):
        own = one in same.index
        before.append(same[one] if own else means.get(one[:-1], np.nan))
        original.append(str(one if own else one[:-1]))
    rows = with_it.assign(_before=np.array(before, dtype=float), _original=np.array(original, dtype=object))
    return rows[rows["_before"].notna()]
