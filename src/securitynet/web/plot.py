"""A plot of any two fields of the models that match, coloured by a third, and how the two go together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from securitynet.analysis import statistics
from securitynet.analysis.statistics import Estimate
from securitynet.catalog.codebook import codebook
from securitynet.errors import UnknownName
from securitynet.web.columns import UNKNOWN, Columns, Floats, Integers
from securitynet.web.search import Search
from securitynet.web.state import State

MOST_POINTS = 2000
"""Points that are drawn; of more models this many are drawn at random, always the same ones."""

MOST_COLOURS = 5
OTHER = "other"
OTHER_COLOUR = MOST_COLOURS
LOGARITHMIC = frozenset({"parameters", "flops", "training_size", "classes"})


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
    points: tuple[Point, ...]
    groups: tuple[str, ...]
    total: int
    lacking: int
    correlation: Estimate
    ranks: Estimate | None


def fields(columns: Columns) -> dict[str, list[str]]:
    """What can stand on an axis, by kind: codes of which some entry has a value, and measured names."""
    codes = [
        name for name, info in codebook().items() if info.numeric and bool(np.isfinite(columns.numeric[name]).any())
    ]
    return {"measured": list(columns.measured), "annotated": codes}


def colours(columns: Columns) -> list[str]:
    """What can colour."""
    return [name for name, facet in columns.facets.items() if facet.owners is None and len(facet.values) > 1]


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
    key = (search.columns.change, state.text, tuple(sorted(state.filters.items())), x, y, colour)
    made: Plot | None = search.plots.get(key, lambda: _plot(search, state, x, y, colour))
    return made


def _plot(search: Search, state: State, x: str, y: str, colour: str) -> Plot | None:
    found = search.find(state)
    columns = found.columns
    offered = [name for names in fields(columns).values() for name in names]
    if len(offered) < 2:
        return None
    x = _known(x, offered, _default(offered, ("accuracy.test", "claimed_accuracy")))
    y = _known(y, offered, _default([n for n in offered if n != x], ("stealing.accuracy", "parameters", "year")))
    if colour:
        _known(colour, colours(columns), "")
    across, up = columns.numeric[x][found.positions], columns.numeric[y][found.positions]
    log = (_logarithmic(x, across), _logarithmic(y, up))
    across, up = (np.log10(values) if is_log else values for values, is_log in zip((across, up), log, strict=True))
    complete = np.isfinite(across) & np.isfinite(up)
    positions = found.positions[complete]
    across, up = across[complete], up[complete]
    families = columns.facets["family"].codes[positions]
    pearson, ranks = _correlations(across, up, families)
    drawn = np.arange(len(positions))
    if len(drawn) > MOST_POINTS:
        drawn = np.sort(np.random.default_rng(0).choice(len(drawn), MOST_POINTS, replace=False))
    groups, number = _groups(columns, colour, positions)
    names = search.names(columns.numbers[positions[drawn]])
    points = []
    for place in drawn:
        known = names.get(int(columns.numbers[positions[place]]))
        if known:
            where = (float(v[place]) for v in (across, up))
            first, second = (10**value if is_log else value for value, is_log in zip(where, log, strict=True))
            index = int(number[place])
            points.append(Point(first, second, index, *known, group=groups[index] if groups else ""))
    return Plot(
        x=x,
        y=y,
        colour=colour,
        log=log,
        points=tuple(points),
        groups=groups,
        total=len(positions),
        lacking=found.total - len(positions),
        correlation=pearson,
        ranks=ranks,
    )


def clustered_pearson(x: Floats, y: Floats, clusters: Integers, resamples: int, seed: int = 0) -> Estimate:
    """Pearson's r with the interval of a bootstrap over clusters, from sums a cluster: quick for a million models.

    It is what `securitynet.analysis.statistics.correlation` gives with clusters, without weights a model.
    """
    x, y = ((v - v.mean()) / (v.std() or 1) for v in (x, y))
    present = np.bincount(clusters) > 0
    codes = (np.cumsum(present) - 1)[clusters]  # without a gap, and without sorting a million
    count = int(present.sum())
    sums = np.stack(
        [np.bincount(codes, weights=part, minlength=count) for part in (np.ones(len(x)), x, y, x * x, y * y, x * y)]
    )
    random = np.random.default_rng([seed, 0])
    times = random.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)

    def pearson(weights: Floats) -> Floats:
        n, sx, sy, sxx, syy, sxy = (weights @ sums.T).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((sxy - sx * sy / n) / np.sqrt((sxx - sx**2 / n) * (syy - sy**2 / n)))

    value = float(pearson(np.ones((1, count)))[0])
    method = f"Pearson's r, bootstrap over {count} families with {resamples:,} resamples"
    if not np.isfinite(value):
        return Estimate(np.nan, np.nan, np.nan, None, len(x), None, "a quantity that does not vary")
    values = pearson(times)
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value), None, len(x), count, method)


def _correlations(x: Floats, y: Floats, families: Integers) -> tuple[Estimate, Estimate | None]:
    if len(x) <= MOST_POINTS:
        # As many resamples as a page can wait for.
        resamples = 1000 if len(x) <= MOST_POINTS // 2 else 400
        pearson = statistics.correlation(x, y, clusters=families, resamples=resamples)
        return pearson, statistics.correlation(x, y, kind="spearman", clusters=families, resamples=200)
    if np.count_nonzero(np.bincount(families)) >= statistics.FEWEST_CLUSTERS:
        return clustered_pearson(x, y, families, statistics.RESAMPLES), None
    value = float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan
    with np.errstate(divide="ignore"):
        ends = np.tanh(np.arctanh(value) + np.array([-1.96, 1.96]) / np.sqrt(len(x) - 3))
    return Estimate(value, float(ends[0]), float(ends[1]), None, len(x), None, "Pearson's r, Fisher's z interval"), None


def _groups(columns: Columns, colour: str, positions: Integers) -> tuple[tuple[str, ...], Integers]:
    """The most frequent values and the rest as one, and the index of each model's."""
    if not colour or not len(positions):
        return (), np.zeros(len(positions), dtype=np.int64)
    facet = columns.facets[colour]
    codes = facet.codes[positions]
    counts = np.bincount(codes, minlength=len(facet.values))
    counts[UNKNOWN] = 0
    most = [int(n) for n in np.argsort(-counts, kind="stable")[:MOST_COLOURS] if counts[n]]
    lookup = np.full(len(facet.values), OTHER_COLOUR)
    lookup[most] = np.arange(len(most))
    rest = bool((lookup[codes] == OTHER_COLOUR).any())
    names = [facet.values[n] for n in most]
    padding = [""] * (MOST_COLOURS - len(names))
    return (*names, *padding, OTHER if rest else ""), lookup[codes]


def _logarithmic(name: str, values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return name in LOGARITHMIC and len(known) > 0 and known.min() > 0 and known.max() / known.min() > 30


def _default(offered: list[str], wanted: tuple[str, ...]) -> str:
    return next((name for name in wanted if name in offered), offered[0])


def _known(name: str, offered: Iterable[str], default: str) -> str:
    offered = list(offered)
    if name and name not in offered:
        raise UnknownName("field to plot", name, offered)
    return name or default
