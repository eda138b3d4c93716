"""The cases that a claim is about: which rows count, and columns that the papers' claims need besides measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas

from securitynet.analysis import clusters, frames
from securitynet.analysis import quantities as q
from securitynet.analysis.frames import Quantity
from securitynet.analysis.hypotheses.tested import list_words

Only = Mapping[str, tuple[str | None, ...]]
"""Column -> values that a case must have; None stands for a missing one."""

Prepare = Callable[[pandas.DataFrame, pandas.DataFrame], pandas.DataFrame]
"""From a wide frame and the tidy one that it was made from to the wide frame with further columns, or fewer rows."""


class NoCases(Exception):
    """No case can be used for a claim; the message says what is missing."""


def select_rows(
    tidy: pandas.DataFrame,
    quantities: Mapping[str, Quantity],
    *,
    only: Only,
    prefer: Only | None = None,
    with_defenses: bool = False,
    prepare: Prepare | None = None,
) -> pandas.DataFrame:
    """One row for each case that has all quantities.

    Args:
        tidy: Tidy frame.
        quantities: What must have been measured.
        only: What the claim names; no other case counts.
        prefer: What the paper's data is, without being named: applied where there are such cases.
        with_defenses: Whether targets with a defense count.
        prepare: Adds columns, or leaves out rows.

    Raises:
        NoCases: If there are none.
    """
    counts = tidy["backdoor"].isna()
    rows = frames.keep(tidy, counts if with_defenses else counts & tidy["defense"].isna())
    for column, values in only.items():
        inside = frames.keep(rows, frames.match_values(rows[column], values))
        if inside.empty:
            raise NoCases(f"there are no models of {column.replace('_', ' ')} {_named(values)}")
        rows = inside
    if prefer:
        rows = frames.prefer_rows(rows, prefer, quantities.values())
    missing = [quantity.label for quantity in quantities.values() if frames.take(rows, quantity).empty]
    if missing:
        of = f" on {_named(only['dataset'])}" if "dataset" in only else ""
        raise NoCases(f"there is no measurement{of} of: {'; '.join(dict.fromkeys(missing))}")
    wide = frames.widen(rows, dict(quantities))
    if prepare is not None:
        wide = prepare(wide, rows)
    if wide.empty:
        raise NoCases("no model has what the claim is about")
    return wide


def _named(values: tuple[str | None, ...]) -> str:
    return list_words([value for value in values if value is not None]) or "none"


def drop_unmeasured(wide: pandas.DataFrame, *names: str) -> pandas.DataFrame:
    """The rows that have all of some columns."""
    return wide[wide[[*names]].notna().all(axis=1)]


def add_clusters(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
    """Adds ``cluster``: ``benchmark``, or ``low`` and ``high`` for the clusters of security models."""
    security = clusters.cluster_models(tidy)
    return wide.assign(cluster=wide["case"].map(security.cluster_of), missing_clusters=security.describe_missing())


def add_difficulty(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
    """Adds ``difficulty``: the lowest test error that any undefended target of the dataset reaches.

    Of ML-Doctor's datasets it gives the order in which the paper lists them by complexity: FMNIST, UTKFace, CelebA,
    STL10 (section 6.2).
    """
    rows = frames.widen(tidy[tidy["defense"].isna()], {"accuracy": q.TARGET_ACCURACY})
    best = rows.groupby("dataset")["accuracy"].max()
    return wide.assign(difficulty=1 - wide["dataset"].map(best).astype(float))


def add_images_per_class(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
    """Adds ``images_per_class``, of the training data, and ``log_classes``: datasets with many classes are complex."""
    classes = pandas.to_numeric(wide["classes"]).astype(float)
    size = pandas.to_numeric(wide["training_size"]).astype(float)
    return wide.assign(images_per_class=size / classes, log_classes=np.log10(classes))


def limit_epochs(most: int) -> Prepare:
    """Leaves out targets that were trained for more epochs."""

    def prepare(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
        rows = wide[pandas.to_numeric(wide["epochs"]) <= most]
        if rows["epochs"].nunique() < 2:
            raise NoCases(f"there are no targets that were trained for several numbers of epochs up to {most}")
        return rows

    return prepare


def pair_epochs(quantity: str, epochs: int) -> Prepare:
    """One row per dataset, architecture and seed: ``early``, with so many epochs or slightly more; ``late``, with most.

    Args:
        quantity: Name of the quantity.
        epochs: The number of epochs from which nothing is claimed to change.
    """

    def prepare(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
        rows = drop_unmeasured(wide, quantity, "epochs")
        rows = rows.assign(epochs=pandas.to_numeric(rows["epochs"]), seed=rows["seed"].fillna(-1))
        rows = rows[rows["epochs"] >= epochs].sort_values("epochs", kind="stable")
        grouped = rows.groupby(["dataset", "architecture", "seed"], sort=True)
        first, last = grouped.head(1), grouped.tail(1)
        pairs = first.merge(last, on=["dataset", "architecture", "seed"], suffixes=("", "_last"))
        pairs = pairs[pairs["epochs_last"] > pairs["epochs"]]
        if pairs.empty:
            raise NoCases(f"no target was trained for about {epochs} epochs and, with the same seed, for more")
        return pairs.assign(early=pairs[quantity], late=pairs[f"{quantity}_last"])

    return prepare


def add_budgets(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
    """Adds ``least`` and ``most``: the surrogate's accuracy with the smallest and the largest query budget."""
    budget = tidy["at"].astype(object).fillna("").astype(str).str.extract(r"^budget=([0-9.e+]+)$")[0].astype(float)
    stolen = (tidy["attack"] == "stealing") & (tidy["measure"] == "accuracy") & tidy["value"].notna()
    usual = frames.match_values(tidy["surrogate"], ("usual", None)) & frames.match_values(
        tidy["auxiliary"], ("partial", None)
    )
    rows = tidy[stolen & usual].assign(budget=budget.fillna(np.inf))  # without a budget, all images were queried
    values = rows.groupby(["case", "method", "budget"], dropna=False)["value"].mean().reset_index()
    values = values.sort_values("budget", kind="stable")
    ends = values.groupby(["case", "method"], dropna=False).agg(
        least=("value", "first"), most=("value", "last"), budgets=("budget", "nunique")
    )
    ends = ends[ends["budgets"] > 1].reset_index().drop_duplicates("case").set_index("case")
    if ends.empty:
        raise NoCases("no target was stolen with several query budgets")
    return wide.join(ends[["least", "most"]], on="case").dropna(subset=["least"])


def add_seconds(**methods: str) -> Prepare:
    """Adds a column for each name: the seconds that a method took on the model.

    Args:
        methods: Name of the column -> the method.
    """

    def prepare(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
        seconds = {
            name: pandas.to_numeric(tidy[tidy["method"] == method].groupby("case")["seconds"].first())
            for name, method in methods.items()
        }
        return wide.assign(**{name: wide["case"].map(values).astype(float) for name, values in seconds.items()})

    return prepare
