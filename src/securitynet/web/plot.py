"""A plot of any two fields of the models that match, coloured by a third, and how the two go together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.analysis import resampling, statistics
from securitynet.analysis.simpson import CorrelationInGroup, correlate_within_datasets, describe_mixed_signs
from securitynet.analysis.statistics import FEWEST, Estimate
from securitynet.catalog.codebook import load_codebook
from securitynet.errors import UnknownName
from securitynet.web.column_store import UNKNOWN, Columns, Floats, Integers
from securitynet.web.search import Matches, Search
from securitynet.web.state import State

MOST_POINTS = 2000
"""Models that are all drawn as points."""

SAMPLE = 1000
"""Of more models than that, this many are drawn as points, at random and always the same ones, before the density."""

CELLS = (50, 28)
"""Cells of the density, across and upwards."""

MOST_COLOURS = 5
MOST_GROUPS = 8
"""Groups whose correlations are listed."""

WITHIN = ("dataset", "purpose")
"""The codes whose groups are taken apart by default; models that were trained for security have a relation of their
own, as SecurityNet's figures show."""

OTHER = "other"
OTHER_COLOUR = MOST_COLOURS
_AT_ONCE = threading.Semaphore(2)
"""Plots that are made at a time: each takes some sixty million bytes for a million models."""

Codes = NDArray[np.integer[Any]]


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
        correlation: Pearson's, of all that have both (logarithms, where an axis is logarithmic), within datasets where
            there are several.
        ranks: Spearman's, likewise; None for more models than are drawn.
        within: The codes of `WITHIN` that split the models, within whose groups the correlations are.
        by_group: Pearson's in each of these groups, the largest first, or in each of the colour; empty for one.
        mixed: A sentence if groups contradict each other, or the pooled correlation contradicts all.
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
    within: tuple[str, ...]
    by_group: tuple[CorrelationInGroup, ...]
    mixed: str | None


def list_colours(columns: Columns) -> list[str]:
    """Codes that can colour a plot: facets of one value an entry."""
    return [name for name, facet in columns.facets.items() if facet.values and not load_codebook()[name].several]


def make_plot(search: Search, state: State, x: str = "", y: str = "", colour: str = "") -> Plot | None:
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
    search.make_query(state)
    snapshot = search.snapshot
    key = (state.text, tuple(sorted(state.filters.items())), x, y, colour)
    plot: Plot | None = snapshot.plots.get(key, lambda: _plot_matches(search, snapshot.match(state), x, y, colour))
    return plot


def _plot_matches(search: Search, matches: Matches, x: str, y: str, colour: str) -> Plot | None:
    columns = matches.snapshot.columns
    offered = [name for names in columns.axes.values() for name in names]
    if len(offered) < 2:
        return None
    x = _known(x, offered, _default(offered, ("accuracy.test", "claimed_accuracy")))
    y = _known(y, offered, _default([n for n in offered if n != x], ("stealing.accuracy", "parameters", "year")))
    if colour:
        _known(colour, list_colours(columns), "")
    with _AT_ONCE:
        return _build_plot(search, matches, x, y, colour)


def _build_plot(search: Search, matches: Matches, x: str, y: str, colour: str) -> Plot:
    columns = matches.snapshot.columns
    log = (_is_logarithmic(matches, x), _is_logarithmic(matches, y))
    rows = matches.rows
    for name, is_log in zip((x, y), log, strict=True):
        values = columns.numeric[name][rows]
        rows = rows[values > 0 if is_log else np.isfinite(values)]
    raw = [columns.numeric[name][rows] for name in (x, y)]
    across, up = (np.log10(values) if is_log else values for values, is_log in zip(raw, log, strict=True))
    within, strata, names = _split(columns, WITHIN, rows)
    other, names = (strata, names) if colour in ("", *WITHIN) else _split(columns, (colour,), rows)[1:]
    by_group = correlate_within_datasets(across, up, other, names) if len(names) > 1 else []
    pearson, ranks = _correlations(across, up, columns.facets["family"].codes[rows], strata)
    varies = len(rows) >= FEWEST and np.ptp(across) > 0 and np.ptp(up) > 0
    pooled = float(np.corrcoef(across, up)[0, 1]) if within and varies else None
    crowded = len(rows) > MOST_POINTS
    drawn = np.arange(len(rows))
    if crowded:
        drawn = np.sort(np.random.default_rng(0).choice(len(drawn), SAMPLE, replace=False))
    groups, group = _group_by_colour(columns, colour, rows)
    numbers = columns.numbers[rows[drawn]].tolist()
    labels = search.read_names(numbers)
    points = []
    for place, number in zip(drawn.tolist(), numbers, strict=True):
        if number in labels:
            index = int(group[place])
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
        total=len(rows),
        lacking=matches.total - len(rows),
        correlation=pearson,
        ranks=ranks,
        within=within,
        by_group=tuple(by_group[:MOST_GROUPS]),
        mixed=describe_mixed_signs(((group.group, group.r) for group in by_group), pooled),
    )


def _ends(values: Floats) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def _density(x: Floats, y: Floats, extent: tuple[tuple[float, float], tuple[float, float]]) -> Integers:
    """How many points are in each cell, `CELLS`."""
    counts = np.zeros(CELLS[0] * CELLS[1], dtype=np.int64)
    for part in _blocks(len(x)):
        cells: Integers = np.zeros(1, dtype=np.intp)
        for values, (low, high), count in zip((x[part], y[part]), extent, CELLS, strict=True):
            inside = ((values - low) * (count / ((high - low) or 1))).astype(np.intp)
            cells = cells * count + np.minimum(inside, count - 1)
        counts += np.bincount(cells, minlength=len(counts))
    return counts.reshape(CELLS)


def _blocks(count: int) -> Iterator[slice]:
    """Stretches short enough for what is computed of them to stay in the processor's cache."""
    for first in range(0, count, 1 << 16):
        yield slice(first, first + (1 << 16))


def _centred(values: Floats, groups: Codes) -> Floats:
    """Values less the mean of their group."""
    sums = np.bincount(groups, weights=values)
    counts = np.maximum(np.bincount(groups), 1)
    centred: Floats = values - (sums / counts)[groups]
    return centred


def compute_clustered_pearson(x: Floats, y: Floats, clusters: Codes) -> Estimate:
    """Compute Pearson's r and its jackknife interval over clusters from sums per cluster: fast for a million models.

    The result is that of `securitynet.analysis.statistics.estimate_correlation` with clusters.

    Args:
        x: N, one value per model.
        y: N, the other value.
        clusters: N, number of each model's cluster, from 0.
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
    resampled = resampling.jackknife(lambda w: resampling.transform_to_z(pearson(w), len(x), "pearson"), count, None)
    value = float(pearson(np.ones((1, count)))[0])
    low, high = np.tanh(resampled.interval(0.95))
    method = f"Pearson's r, jackknife over {count} families"
    return Estimate(value, min(float(low), value), max(float(high), value), None, len(x), count, method)


def _split(columns: Columns, by: Sequence[str], rows: Integers) -> tuple[tuple[str, ...], Codes, dict[int, str]]:
    """Split models into groups by one code, and these by the next.

    Returns:
        The codes that split, the number of each model's group, and the names of the groups whose first code is known;
        further codes are in a name only where they split that group.
    """
    splitting: list[str] = []
    numbers: Codes = np.zeros(len(rows), dtype=np.int64)
    names = {0: ""}
    for depth, code in enumerate(by):
        facet = columns.facets[code]
        keys = numbers * (len(facet.values) + 1) + facet.codes[rows]
        counts = np.bincount(keys)
        present = np.flatnonzero(counts)
        parents, values = (part.tolist() for part in np.divmod(present, len(facet.values) + 1))
        if len(present) > len(names):
            splitting.append(code)
        siblings, finer = Counter(parents), {}
        for number, (parent, value) in enumerate(zip(parents, values, strict=True)):
            own = "" if value == UNKNOWN else facet.values[value - 1]
            divided = names[parent] and siblings[parent] > 1
            finer[number] = own if depth == 0 else f"{names[parent]} ({own or 'unknown'})" if divided else names[parent]
        numbers, names = (np.cumsum(counts > 0) - 1)[keys], finer
    return tuple(splitting), numbers, {number: name for number, name in names.items() if name}


def _correlations(x: Floats, y: Floats, families: Codes, groups: Codes) -> tuple[Estimate, Estimate | None]:
    """Pearson's and Spearman's correlation within groups, by families."""
    strata = groups if len(np.unique(groups)) > 1 else None
    if len(x) <= MOST_POINTS:
        # As many permutations as a page can wait for.
        pearson = statistics.estimate_correlation(x, y, clusters=families, strata=strata, resamples=400)
        ranks = statistics.estimate_correlation(x, y, kind="spearman", clusters=families, strata=strata, resamples=200)
        return pearson, ranks
    if strata is not None:
        x, y = (_centred(values, groups) for values in (x, y))
    if np.count_nonzero(np.bincount(families)) >= resampling.FEWEST_CLUSTERS:
        return compute_clustered_pearson(x, y, families), None
    value = float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan
    with np.errstate(divide="ignore"):
        ends = np.tanh(np.arctanh(value) + np.array([-1.96, 1.96]) / np.sqrt(len(x) - 3))
    return Estimate(value, float(ends[0]), float(ends[1]), None, len(x), None, "Pearson's r, Fisher's z interval"), None


def _group_by_colour(columns: Columns, colour: str, rows: Integers) -> tuple[tuple[str, ...], Integers]:
    """The most frequent values and the rest as one, and the index of each model's."""
    if not colour or not len(rows):
        return (), np.zeros(len(rows), dtype=np.int64)
    facet = columns.facets[colour]
    codes = facet.codes[rows]
    counts = np.bincount(codes, minlength=len(facet.values) + 1)
    counts[UNKNOWN] = 0
    most = [int(n) for n in np.argsort(-counts, kind="stable")[:MOST_COLOURS] if counts[n]]
    lookup = np.full(len(counts), OTHER_COLOUR)
    lookup[most] = np.arange(len(most))
    index = lookup[codes]
    names = [facet.values[n - 1] for n in most]
    padding = [""] * (MOST_COLOURS - len(names))
    return (*names, *padding, OTHER if (index == OTHER_COLOUR).any() else ""), index


def _is_logarithmic(matches: Matches, name: str) -> bool:
    """Whether values that may have a logarithmic axis span so much that they need one."""
    if name not in load_codebook() or not load_codebook()[name].log_axis:
        return False
    values = matches.snapshot.columns.numeric[name][matches.rows]
    least, most = (float(end.reduce(values, initial=np.nan)) for end in (np.fmin, np.fmax))
    return least > 0 and most / least > 30


def _default(offered: list[str], wanted: tuple[str, ...]) -> str:
    return next((name for name in wanted if name in offered), offered[0])


def _known(name: str, offered: Iterable[str], default: str) -> str:
    offered = list(offered)
    if name and name not in offered:
        raise UnknownName("field to plot", name, offered)
    return name or default
