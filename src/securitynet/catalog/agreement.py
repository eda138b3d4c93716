"""Annotation by several people: how far they agree, where they do not, and what holds.

Two coders: Cohen's kappa. More: Fleiss' kappa where all coded the same entries, and Krippendorff's alpha, which bears
gaps. The statistics come from statsmodels and krippendorff. Over all codes, (entry, code) pairs are units, as in the
paper's Appendix A (Cohen's kappa 0.915).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import krippendorff
import numpy
import sqlalchemy as sa
from statsmodels.stats import inter_rater

from securitynet.catalog import store
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.codebook import find_code
from securitynet.catalog.identify import find_row
from securitynet.catalog.tables import coder_values, entries
from securitynet.errors import ConfigurationError

_DECIDED = f"{store.PERSON}decision"
_Units = Mapping[tuple[str, str], Mapping[str, Any]]
"""(Entry id, code) -> coder -> value."""


@dataclass(frozen=True)
class Agreement:
    """How far coders agree on one code, or on all.

    Attributes:
        code: The code; ``all`` for all together.
        coders: Who coded.
        units: How many values at least two of them gave.
        percent: Share of pairs of coders that gave the same value, in [0, 1].
        cohen: Cohen's kappa, of two coders only.
        fleiss: Fleiss' kappa, of three or more that all coded every unit.
        krippendorff: Krippendorff's alpha, nominal. None where all values are one: then agreement is not defined.
    """

    code: str
    coders: tuple[str, ...]
    units: int
    percent: float
    cohen: float | None
    fleiss: float | None
    krippendorff: float | None


@dataclass(frozen=True)
class Disagreement:
    """A value on which coders differ.

    Attributes:
        entry: Id of the entry.
        code: The code.
        values: Coder -> value.
        majority: The value that more than half of them gave; None if none did.
    """

    entry: str
    code: str
    values: dict[str, Any]
    majority: Any


def annotate(catalog: Catalog, coder: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Store one coder's values; what they coded before is replaced, and kept. How many are new or different.

    Args:
        catalog: Where.
        coder: Name of the coder.
        rows: (identifier of an entry, code -> value).

    Raises:
        UnknownName: If an entry or a code is not there: then nothing is stored.
        ConfigurationError: If two rows say different things of one entry: then nothing is stored either.
    """
    if not coder.strip():
        raise ConfigurationError("Annotations need the name of their coder.", hint="Give --coder NAME.")
    with catalog.database.write() as connection:
        change = store.begin_change(connection, "annotate", f"coder:{coder}")
        new = 0
        given: dict[tuple[int, str], Any] = {}
        for identifier, values in rows:
            number = find_row(connection, identifier)["number"]
            for name, value in values.items():
                info = find_code(name)
                parsed = info.parse(value) if isinstance(value, str) else info.check(value)
                encoded = sorted(parsed) if info.several else parsed
                if given.setdefault((number, info.name), encoded) != encoded:
                    raise ConfigurationError(
                        f"{coder} gives two values of {info.name} for {identifier}.",
                        hint="Keep one; nothing was stored.",
                    )
                here = (
                    (coder_values.c.entry == number)
                    & (coder_values.c.code == info.name)
                    & (coder_values.c.coder == coder)
                )
                old = (
                    connection.execute(sa.select(coder_values).where(here, coder_values.c.ended.is_(None)))
                    .mappings()
                    .first()
                )
                if old is not None and json.loads(old["value"]) == encoded:
                    continue
                if old is not None:
                    connection.execute(
                        sa.update(coder_values).where(coder_values.c.number == old["number"]).values(ended=change)
                    )
                row = {
                    "entry": number,
                    "code": info.name,
                    "coder": coder,
                    "value": json.dumps(encoded),
                    "change": change,
                }
                connection.execute(sa.insert(coder_values).values(row))
                new += 1
        store.end_change(connection, change, store.Tally(measurements=new))
    return new


def read_units(catalog: Catalog) -> dict[tuple[str, str], dict[str, Any]]:
    """All present annotations: (entry id, code) -> coder -> value."""
    statement = (
        sa.select(entries.c.id, coder_values.c.code, coder_values.c.coder, coder_values.c.value)
        .join(entries, entries.c.number == coder_values.c.entry)
        .where(coder_values.c.ended.is_(None))
        .order_by(coder_values.c.number)
    )
    units: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    with catalog.database.read() as connection:
        for row in connection.execute(statement):
            units[row.id, row.code][row.coder] = json.loads(row.value)
    return dict(units)


def measure_agreement(units: _Units) -> list[Agreement]:
    """Agreement per code, and over all codes last.

    Raises:
        ConfigurationError: If no entry was coded by two.
    """
    shared = {unit: values for unit, values in units.items() if len(values) > 1}
    if not shared:
        raise ConfigurationError(
            "No entry has been coded by two people.", hint="Import the annotations of at least two coders."
        )
    by_code = [
        _agreement(name, {unit: values for unit, values in shared.items() if unit[1] == name})
        for name in sorted({name for _, name in shared})
    ]
    return [*by_code, _agreement("all", shared)]


def list_disagreements(units: _Units) -> list[Disagreement]:
    """Values on which coders differ, by entry and code."""
    differing = []
    for (entry, name), values in sorted(units.items()):
        counts = Counter(json.dumps(value) for value in values.values())
        if len(counts) > 1:
            value, votes = counts.most_common(1)[0]
            majority = json.loads(value) if votes * 2 > len(values) else None
            differing.append(Disagreement(entry, name, dict(values), majority))
    return differing


def resolve_values(
    catalog: Catalog, decisions: Mapping[tuple[str, str], Any] | None = None
) -> tuple[int, list[Disagreement]]:
    """Write what coders agree on into the entries: by majority, or as decided by hand.

    Args:
        catalog: Where.
        decisions: (Entry id, code) -> value, before any majority.

    Returns:
        How many entries changed, and the disagreements that are left.
    """
    units = read_units(catalog)
    decisions = decisions or {}
    agreed: dict[str, dict[str, Any]] = defaultdict(dict)
    left = []
    open_ = {(item.entry, item.code): item for item in list_disagreements(units)}
    for (entry, name), values in units.items():
        differs = open_.get((entry, name))
        if (entry, name) in decisions:
            agreed[entry][name] = decisions[entry, name]
        elif differs is None and len(values) > 1:
            agreed[entry][name] = next(iter(values.values()))
        elif differs is not None and differs.majority is not None:
            agreed[entry][name] = differs.majority
        elif differs is not None:
            left.append(differs)
    changed = 0
    for entry in {entry for entry, _ in [*units, *decisions]}:
        known = catalog.details(entry)
        # What was decided by hand, now or before, holds against any majority.
        decided = {name for name, source in known.sources.items() if source == _DECIDED}
        decided |= {name for name, value in agreed[entry].items() if (entry, name) in decisions}
        left = [item for item in left if item.entry != entry or item.code not in decided]
        after = known.entry
        if by_hand := {name: value for (of, name), value in decisions.items() if of == entry}:
            after = catalog.edit(entry, by_hand, note="decided by hand", source=_DECIDED)
        if codes := {name: value for name, value in agreed[entry].items() if name not in decided}:
            after = catalog.edit(entry, codes, note="agreed by coders", source=f"{store.PERSON}coders")
        changed += after != known.entry
    return changed, left


def _agreement(name: str, units: _Units) -> Agreement:
    coders = tuple(sorted({coder for values in units.values() for coder in values}))
    categories: dict[str, int] = {}
    table = numpy.full((len(coders), len(units)), numpy.nan)
    for column, ((_, unit_code), values) in enumerate(units.items()):
        for row, coder in enumerate(coders):
            if coder in values:
                # Over all codes, a value of one code is not the same as an equal one of another.
                label = f"{unit_code}={json.dumps(values[coder])}"
                table[row, column] = categories.setdefault(label, len(categories))
    whole = not numpy.isnan(table).any()
    cohen = fleiss = None
    if len(categories) > 1:
        if len(coders) == 2 and whole:
            size = len(categories)
            counts = numpy.zeros((size, size))
            for first, second in table.T.astype(int):
                counts[first, second] += 1
            cohen = float(inter_rater.cohens_kappa(counts, return_results=False))
        elif whole:
            counted, _ = inter_rater.aggregate_raters(table.T.astype(int), len(categories))
            fleiss = float(inter_rater.fleiss_kappa(counted))
    alpha = krippendorff.alpha(table, level_of_measurement="nominal") if len(categories) > 1 else None
    pairs = [(a == b) for column in table.T for i, a in enumerate(column) for b in column[i + 1 :]
             if not (numpy.isnan(a) or numpy.isnan(b))]  # fmt: skip
    return Agreement(
        code=name,
        coders=coders,
        units=table.shape[1],
        percent=float(numpy.mean(pairs)),
        cohen=cohen,
        fleiss=fleiss,
        krippendorff=None if alpha is None else float(alpha),
    )


def parse_decisions(catalog: Catalog, texts: Iterable[str]) -> dict[tuple[str, str], Any]:
    """Decisions by hand, from texts ``ENTRY:CODE=VALUE``.

    Raises:
        ConfigurationError: If a text is not of that form, or the value is not allowed.
    """
    decided: dict[tuple[str, str], Any] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        identifier, colon, name = left.rpartition(":")
        if not (equals and colon and identifier):
            raise ConfigurationError(f"{text!r} is no decision.", hint="Write ENTRY:CODE=VALUE.")
        decided[catalog.get(identifier).id, find_code(name).name] = find_code(name).parse(value)
    return decided
