"""A plot of any two fields of the models that match, coloured by a third, and how the two go together."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from securitynet.analysis import resampling, statistics
from securitynet.analysis.statistics import Estimate
from securitynet.catalog.codebook import codebook
from securitynet.errors import UnknownName
from securitynet.web.search import Integers, Search, Snapshot
from securitynet.web.state import State

MOST_POINTS = 2000
"""Models that are all drawn as points."""

SAMPLE = 1000
"""Of more models than that, this many are drawn as points, at random and always the same ones, before the density."""

CELLS = (50, 28)
"""Cells of the density, across and upwards."""

MOST_COLOURS = 5
OTHER = "other"
OTHER_COLOUR = MOST_COLOURS
_AT_ONCE = threading.Semaphore(2)
"""Plots that are made at a time: each takes some sixty million bytes for a million models."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A model in a plot: where it is, which colour it has (an index), and which model it is."""

    x: float
    y: float
    colour: int
    id: str
    name: str
    dataset: str | None
    group: str


@dataclass(frozen=True)
class Plot:
    """What is drawn.

    Attributes:
        x: Field across.
        y: Field upwards.
        colour: Code that colours, or nothing.
        log: Which of x and y have a logarithmic axis.
        extent: Least and largest x, and least and largest y, of all (logarithms, where an axis is logarithmic).
        density: How many models are in each cell of a grid of `CELLS` over the extent; None if all are drawn as points.
        points: At most `MOST_POINTS`.
        groups: Names of the colours, by index.
        total: Models that have both values.
        lacking: Models that match and lack one of them.
        correlation: Pearson's, of all that have both (logarithms, where an axis is logarithmic).
        ranks: Spearman's; None for more models than are drawn.
    """

    x: str
    y: str
    colour: str
    log: tuple[bool, bool]
    extent: tuple[tuple[float, float], tuple[float, float]]
    density: Integers | None
    points: tuple[Point, ...]
    groups: tuple[str, ...]
    total: int
    lacking: int
    correlation: Estimate
    ranks: Estimate | None


def colours(snapshot: Snapshot) -> list[str]:
    """What can colour."""
    return [n for n, values in snapshot.facet_values.items() if values and not codebook()[n].several]


def plot(search: Search, state: State, x: str = "", y: str = "", colour: str = "") -> Plot | None:
    """The plot of the models that match; None if nothing can be plotted.

    Args:
        search: Where.
        state: Which models.
        x: Field across; chosen if empty.
        y: Field upwards; chosen if empty.
        colour: Code that colours; none if empty.

    Raises:
        UnknownName: If a field is not there.
    """
    search.query(state)
    snapshot = search.snapshot
    key = (state.text, tuple(sorted(state.filters.items())), x, y, colour)
    made: Plot | None = snapshot.plots.get(key, lambda: _make_plot(search, snapshot, state, x, y, colour))
    return made


def _make_plot(search: Search, snapshot: Snapshot, state: State, x: str, y: str, colour: str) -> Plot | None:
    offered = [name for names in snapshot.numeric.values() for name in names]
    if len(offered) < 2:
        return None
    x = _known(x, offered, _default(offered, ("accuracy.test", "claimed_accuracy")))
    y = _known(y, offered, _default([n for n in offered if n != x], ("stealing.accuracy", "parameters", "year")))
    if colour:
        _known(colour, colours(snapshot), "")
    with _AT_ONCE:
        return _plot(search, snapshot, state, x, y, colour)


def _plot(search: Search, snapshot: Snapshot, state: State, x: str, y: str, colour: str) -> Plot:
    matches = snapshot.match(state)
    names = list(dict.fromkeys(("number", x, y, "family", *([colour] if colour else ()))))
    table = snapshot.frame.select(names).filter(matches.mask)
    log = (_is_logarithmic(table, x), _is_logarithmic(table, y))
    for name, is_log in zip((x, y), log, strict=True):
        table = table.filter(pl.col(name) > 0 if is_log else pl.col(name).is_finite())
    raw = [table[name].to_numpy() for name in (x, y)]
    across, up = (np.log10(values) if is_log else values for values, is_log in zip(raw, log, strict=True))
    # Number 0 stands for models of no known family.
    families = table.select((pl.col("family").to_physical().cast(pl.Int64) + 1).fill_null(0)).to_series().to_numpy()
    pearson, ranks = _correlations(across, up, families)
    crowded = table.height > MOST_POINTS
    drawn = np.arange(table.height)
    if crowded:
        drawn = np.sort(np.random.default_rng(0).choice(len(drawn), SAMPLE, replace=False))
    groups, group = _groups(table[colour] if colour else None)
    numbers = table["number"].to_numpy()[drawn].tolist()
    labels = search.names(numbers)
    points = []
    for place, number in zip(drawn.tolist(), numbers, strict=True):
        if number in labels:
            index = int(group[place]) if groups else 0
            first, second = (float(values[place]) for values in raw)
            points.append(Point(first, second, index, *labels[number], group=groups[index] if groups else ""))
    extent = (_ends(across), _ends(up))
    return Plot(
        x=x,
        y=y,
        colour=colour,
        log=log,
        extent=extent,
        density=_density(across, up, extent) if crowded else None,
        points=tuple(points),
        groups=groups,
        total=table.height,
        lacking=matches.total - table.height,
        correlation=pearson,
        ranks=ranks,
    )


def _ends(values: Floats) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def _density(x: Floats, y: Floats, extent: tuple[tuple[float, float], tuple[float, float]]) -> Integers:
    """How many points are in each cell, `CELLS`."""
    found = np.zeros(CELLS[0] * CELLS[1], dtype=np.int64)
    for part in _blocks(len(x)):
        cells: Integers = np.zeros(1, dtype=np.intp)
        for values, (low, high), count in zip((x[part], y[part]), extent, CELLS, strict=True):
            inside = ((values - low) * (count / ((high - low) or 1))).astype(np.intp)
            cells = cells * count + np.minimum(inside, count - 1)
        found += np.bincount(cells, minlength=len(found))
    return found.reshape(CELLS)


def _blocks(count: int) -> Iterator[slice]:
    """Stretches short enough for what is computed of them to stay in the processor's cache."""
    for first in range(0, count, 1 << 16):
        yield slice(first, first + (1 << 16))


def clustered_pearson(x: Floats, y: Floats, clusters: Integers) -> Estimate:
    """Pearson's r with the interval of a jackknife over clusters, from sums a cluster: quick for a million models.

    It is what `securitynet.analysis.statistics.correlation` gives with clusters, without weights a model.
    """
    if not (len(x) and np.ptp(x) > 0 and np.ptp(y) > 0):
        return Estimate(np.nan, np.nan, np.nan, None, len(x), None, "a quantity that does not vary")
    (mean_x, range_x), (mean_y, range_y) = ((v.mean(), np.ptp(v)) for v in (x, y))
    sums = np.zeros((6, int(clusters.max()) + 1))
    for part in _blocks(len(x)):
        u, v, of = (x[part] - mean_x) / range_x, (y[part] - mean_y) / range_y, clusters[part].astype(np.intp)
        for total, what in zip(sums, (None, u, v, u * u, v * v, u * v), strict=True):
            total += np.bincount(of, weights=what, minlength=len(total))
    sums = sums[:, sums[0] > 0]

    def pearson(weights: Floats) -> Floats:
        n, sx, sy, sxx, syy, sxy = (weights @ sums.T).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((sxy - sx * sy / n) / np.sqrt((sxx - sx**2 / n) * (syy - sy**2 / n)))

    count = sums.shape[1]
    found = resampling.jackknife(lambda w: resampling.fisher_z(pearson(w), len(x), "pearson"), count, None)
    value = float(pearson(np.ones((1, count)))[0])
    low, high = np.tanh(found.interval(0.95))
    method = f"Pearson's r, jackknife over {count} families"
    return Estimate(value, min(float(low), value), max(float(high), value), None, len(x), count, method)


def _correlations(x: Floats, y: Floats, families: Integers) -> tuple[Estimate, Estimate | None]:
    if len(x) <= MOST_POINTS:
        # As many permutations as a page can wait for.
        pearson = statistics.correlation(x, y, clusters=families, resamples=400)
        return pearson, statistics.correlation(x, y, kind="spearman", clusters=families, resamples=200)
    if np.count_nonzero(np.bincount(families)) >= resampling.FEWEST_CLUSTERS:
        return clustered_pearson(x, y, families), None
    value = float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan
    with np.errstate(divide="ignore"):
        ends = np.tanh(np.arctanh(value) + np.array([-1.96, 1.96]) / np.sqrt(len(x) - 3))
    return Estimate(value, float(ends[0]), float(ends[1]), None, len(x), None, "Pearson's r, Fisher's z interval"), None


def _groups(values: pl.Series | None) -> tuple[tuple[str, ...], Integers]:
    """The most frequent values and the rest as one, and the index of each model's."""
    if values is None or values.is_empty():
        return (), np.zeros(0, dtype=np.int64)
    counts = values.drop_nulls().value_counts().sort("count", pl.first(), descending=[True, False])
    most = counts.head(MOST_COLOURS).to_series().cast(pl.String).to_list()
    index = values.cast(pl.String).replace_strict(most, list(range(len(most))), default=OTHER_COLOUR)
    rest = bool((index == OTHER_COLOUR).any())
    padding = [""] * (MOST_COLOURS - len(most))
    return (*most, *padding, OTHER if rest else ""), index.to_numpy()


def _is_logarithmic(table: pl.DataFrame, name: str) -> bool:
    """Whether values that may have a logarithmic axis span so much that they need one."""
    if name not in codebook() or not codebook()[name].log_axis or table[name].drop_nulls().is_empty():
        return False
    least, most = (float(table.select(end).item()) for end in (pl.col(name).min(), pl.col(name).max()))
    return least > 0 and most / least > 30


def _default(offered: list[str], wanted: tuple[str, ...]) -> str:
    return next((name for name in wanted if name in offered), offered[0])


def _known(name: str, offered: Iterable[str], default: str) -> str:
    offered = list(offered)
    if name and name not in offered:
        raise UnknownName("field to plot", name, offered)
    return name or default
