"""Benchmark against security models of like architecture and dataset: the paper's Figures 2 and 3.

Figure 2 compares test accuracy, Figure 3 the overfitting level (training minus test accuracy). The paper sees two
clusters among the security models. Here there are two or none: a mixture of two Gaussians must fit the security models'
accuracies better than one Gaussian by the Bayesian information criterion, and its components must lie apart. More
components would only describe the shape of one cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
import pandas

from securitynet.catalog.frames import choose_accuracy

MIN_FOR_CLUSTERS = 10
APART = 2.0
"""Least distance of two clusters' means, in standard deviations (Ashman's D; Astronomical Journal 108, 1994)."""


@dataclass(frozen=True)
class Group:
    """Some models' values.

    Attributes:
        n: How many models.
        mean: Mean value, NaN if there are none.
        std: Standard deviation.
        low: Least value.
        high: Greatest value.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Benchmark and security models of one dataset.

    Attributes:
        dataset: Its name.
        families: The families that both have.
        accuracy: Purpose -> test accuracies (Figure 2).
        overfitting: Purpose -> training minus test accuracy (Figure 3), of models for which both are known.
        clusters: Clusters of the security models' test accuracies: two, lowest first, or one.
        members: Id of each security model -> number of its cluster, from 0.
    """

    dataset: str
    families: list[str]
    accuracy: dict[str, Group]
    overfitting: dict[str, Group]
    clusters: list[Group] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)


def compare_groups_of_models(
    table: pandas.DataFrame, *, any_architecture: bool = False, seed: int = 0
) -> list[Comparison]:
    """Compare per dataset; datasets without security models are left out.

    Args:
        table: From `Catalog.to_frame`.
        any_architecture: Whether benchmark models of families without a security model count too.
        seed: Seed of the clustering's restarts.
    """
    table = table.assign(_accuracy=choose_accuracy(table), _gap=_overfitting(table))
    comparisons = []
    for dataset, rows in table[table["_accuracy"].notna()].groupby("dataset", sort=True):
        security = rows[rows["purpose"] == "security"]
        benchmark = rows[rows["purpose"] == "benchmark"]
        shared = sorted(set(security["family"].dropna()) & set(benchmark["family"].dropna()))
        if not any_architecture:
            benchmark = benchmark[benchmark["family"].isin(shared)]
        if security.empty or benchmark.empty:
            continue
        clusters, members = find_clusters(security, seed)
        groups = {"benchmark": benchmark, "security": security}
        comparisons.append(
            Comparison(
                dataset=str(dataset),
                families=shared,
                accuracy={purpose: _group(group["_accuracy"]) for purpose, group in groups.items()},
                overfitting={purpose: _group(group["_gap"].dropna()) for purpose, group in groups.items()},
                clusters=clusters,
                members=members,
            )
        )
    return comparisons


def find_clusters(security: pandas.DataFrame, seed: int) -> tuple[list[Group], dict[str, int]]:
    """Two clusters of accuracies (column ``_accuracy``), lowest first, or one; and the cluster of each id."""
    from sklearn.mixture import GaussianMixture  # half a second, which only those wait who need it

    values = security["_accuracy"].to_numpy(dtype=float).reshape(-1, 1)
    labels = numpy.zeros(len(values), dtype=int)
    if len(values) >= MIN_FOR_CLUSTERS and numpy.ptp(values) > 0:
        one, two = (GaussianMixture(count, n_init=5, random_state=seed, reg_covar=1e-5).fit(values) for count in (1, 2))
        apart = abs(float(numpy.diff(two.means_.ravel())[0])) / numpy.sqrt(two.covariances_.mean())
        if two.bic(values) < one.bic(values) and apart > APART:
            labels = two.predict(values)
    order = sorted(set(labels), key=lambda label: values[labels == label].mean())
    rank = {label: number for number, label in enumerate(order)}
    groups = [_group(pandas.Series(values[labels == label].ravel())) for label in order]
    return groups, {name: rank[label] for name, label in zip(security["id"], labels, strict=True)}


def _overfitting(table: pandas.DataFrame) -> pandas.Series:
    """Training minus test accuracy: as measured, else from the publisher's claims."""
    claimed = table["claimed_train_accuracy"].astype("float64") - table["claimed_accuracy"].astype("float64")
    if {"accuracy.train", "accuracy.test"} <= set(table):
        return (table["accuracy.train"] - table["accuracy.test"]).fillna(claimed)
    return claimed


def _group(values: pandas.Series) -> Group:
    if values.empty:
        return Group(0, numpy.nan, numpy.nan, numpy.nan, numpy.nan)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Group(len(values), float(values.mean()), spread, float(values.min()), float(values.max()))
