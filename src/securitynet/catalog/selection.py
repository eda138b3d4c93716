"""Choosing N models for an experiment that cover the range as widely as possible.

The objective, to be maximised over sets of N entries, is the number of pairs (facet, value) that the set covers, each
weighted by ``1 / number of values of its facet``: the mean share of the covered values over the facets. Facets are the
architecture family, the dataset, the year, and the decile of accuracy. Such a coverage function is submodular, so that
taking the best entry at each step reaches at least 1 - 1/e of the optimum. Ties are broken by how rarely the chosen
ones already have an entry's values, then by a hash of the seed and the entry's id: the same seed gives the same set.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from securitynet.catalog.frames import choose_accuracy
from securitynet.errors import ConfigurationError
from securitynet.escaping import escape_controls
from securitynet.files import hash_stably

FACETS = ("family", "dataset", "year", "accuracy decile")


@dataclass(frozen=True)
class Selection:
    """The chosen entries and what they cover.

    Attributes:
        chosen: Rows of the chosen entries, in the order of choice.
        candidates: How many entries there were to choose from.
        objective: Mean share of covered values over the facets, in [0, 1].
        covered: Facet -> values that are covered, with how many of the chosen have them.
        missing: Facet -> values that are not covered.
        unknown: Facet -> how many of the candidates have no value.
        seed: Seed of the tie-breaks.
    """

    chosen: pandas.DataFrame
    candidates: int
    objective: float
    covered: dict[str, dict[str, int]]
    missing: dict[str, list[str]]
    unknown: dict[str, int]
    seed: int

    def as_toml(self) -> str:
        """The model list of a study file."""
        lines = [
            f"# {len(self.chosen)} of {self.candidates} candidates; coverage {self.objective:.3f}; seed {self.seed}"
        ]
        for _, row in self.chosen.iterrows():
            facts = "; ".join(_text(row[name]) for name in ("family", "dataset", "year") if not pandas.isna(row[name]))
            # A line feed in a fact would end the comment, and what follows would be read as settings.
            facts = " ".join(escape_controls(facts).split())
            lines += [f"# {facts}" if facts else "#", "[[models]]", f"reference = {_quote(row['reference'])}"]
            lines += [f"catalog = {_quote(row['id'])}", ""]
        return "\n".join(lines)


def _quote(text: str) -> str:
    """A string of TOML: one of JSON, but for one character."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def select_models(table: pandas.DataFrame, count: int, *, seed: int = 0, facets: tuple[str, ...] = FACETS) -> Selection:
    """Choose entries that cover the facets' values as widely as possible.

    Args:
        table: Candidates, from `Catalog.to_frame`.
        count: How many to choose.
        seed: Seed of the tie-breaks.
        facets: Codes to cover, or ``accuracy decile``.

    Raises:
        ConfigurationError: If there are fewer candidates than ``count``.
    """
    if count < 1:
        raise ConfigurationError("At least one model must be chosen.", hint="Give a number from 1.")
    if len(table) < count:
        raise ConfigurationError(f"Only {len(table)} entries match; {count} were asked for.", hint="Widen the filters.")
    table = table.reset_index(drop=True)
    values = tabulate_facets(table, facets)
    universe = {facet: set(values[facet].dropna()) for facet in values}
    weight = {facet: 1 / len(universe[facet]) if universe[facet] else 0.0 for facet in values}
    draw = {name: hash_stably([seed, name]) for name in table["id"]}
    order = sorted(range(len(table)), key=lambda index: draw[table["id"][index]])
    used: dict[str, Counter[str]] = {facet: Counter() for facet in values}
    rows = {index: {f: values[f][index] for f in values if not pandas.isna(values[f][index])} for index in order}
    chosen: list[int] = []
    for _ in range(count):
        best, best_score = -1, (-1.0, -numpy.inf)
        for index in order:
            gain = sum(weight[f] for f, value in rows[index].items() if not used[f][value])
            # Among equals, the one whose values the chosen have least: entries without values come last.
            spread = sum(weight[f] / (1 + used[f][value]) for f, value in rows[index].items())
            if (gain, spread) > best_score:
                best, best_score = index, (gain, spread)
        chosen.append(best)
        order.remove(best)
        for facet, value in rows[best].items():
            used[facet][value] += 1
    covered = {facet: dict(sorted(used[facet].items())) for facet in values}
    present = [facet for facet in values if universe[facet]]
    return Selection(
        chosen=table.iloc[chosen].reset_index(drop=True),
        candidates=len(table),
        objective=sum(len(covered[f]) / len(universe[f]) for f in present) / max(len(present), 1),
        covered=covered,
        missing={facet: sorted(universe[facet] - set(covered[facet])) for facet in values},
        unknown={facet: int(values[facet].isna().sum()) for facet in values},
        seed=seed,
    )


def tabulate_facets(table: pandas.DataFrame, facets: tuple[str, ...] = FACETS) -> dict[str, Any]:
    """Facet -> value of each row as text; accuracy deciles are those of the table's own accuracies."""
    values: dict[str, Any] = {}
    for facet in facets:
        if facet == "accuracy decile":
            bins = (choose_accuracy(table).rank(method="first", pct=True) * 10).apply(numpy.ceil)
            values[facet] = bins.map(lambda decile: None if pandas.isna(decile) else f"{int(decile):02d}").astype(
                object
            )
        elif facet in table:
            values[facet] = table[facet].map(lambda value: None if pandas.isna(value) else _text(value)).astype(object)
        else:
            raise ConfigurationError(
                f"There is no facet {facet!r}.", hint=f"Known: accuracy decile, {', '.join(map(str, table.columns))}."
            )
    return values


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)
