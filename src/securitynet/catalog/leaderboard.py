"""Leaderboards: the models of one dataset by their robust accuracy, as others published it and as trials measured it.

Four columns say who says what, in the words of RobustBench: *reported* by the authors of the model, *standard* by one
evaluation that is the same for all (AutoAttack; accuracy under corruptions), *best known* (the lowest that any
evaluation reached), and *reproduced*: the lowest that trials of one's own reached, published by `study publish`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.known import spell_dataset
from securitynet.catalog.names import DISTINGUISHING, tell_apart
from securitynet.catalog.published import TEST_ACCURACY
from securitynet.catalog.tables import entries, measurements
from securitynet.errors import ConfigurationError

COLUMNS = ("clean", "reported", "standard", "best_known", "reproduced")
_CORRUPTIONS = "corruptions"
_STANDARD = {"Linf": "autoattack", "L2": "autoattack"}
_EPSILONS = {("Linf", "CIFAR-10"): 8 / 255, ("Linf", "CIFAR-100"): 8 / 255, ("Linf", "ImageNet-1k"): 4 / 255}
"""Largest perturbations of RobustBench's leaderboards; in L2, trials do not say by their names that they are in L2."""

_SLACK = 1e-3
_TRIAL = re.compile(r"evasion\.[\w-]+(?:@\w[\w-]*)?\.robust-accuracy@epsilon=([\d.e-]+)")

THREATS = ("Linf", "L2", _CORRUPTIONS)
"""Attacks by which models can be ordered."""


@dataclass(frozen=True)
class RankedModel:
    """A model on a leaderboard.

    Attributes:
        id: Of its entry.
        label: Its name, with what distinguishes it from equal ones.
        architecture: Of the model, if known.
        year: Of its paper, if known.
    """

    id: str
    label: str
    architecture: str | None
    year: int | None


@dataclass(frozen=True)
class RobustnessRow(RankedModel):
    """A model on a leaderboard of robust accuracy.

    Attributes:
        values: Column -> share in [0, 1], None where it is not known.
        epsilon: Budget of the trial behind ``reproduced``.
    """

    values: dict[str, float | None]
    epsilon: float | None = None


@dataclass(frozen=True)
class RobustnessBoard:
    """Models of one dataset under one threat, the most robust first.

    Attributes:
        dataset: The dataset, as the catalog spells it.
        threat: One of `THREATS`.
        epsilon: Largest perturbation of the published values and of trials; None if there is none.
        rows: Models of which at least one robust accuracy is known.
    """

    dataset: str
    threat: str
    epsilon: float | None
    rows: tuple[RobustnessRow, ...]


def list_leaderboards(catalog: Catalog) -> list[tuple[str, str, int]]:
    """Dataset, threat and number of models of each leaderboard that has any, the largest first.

    Args:
        catalog: The catalog.
    """
    counts: list[tuple[str, str, int]] = []
    for threat in THREATS:
        chief, joined = join_chiefs()
        statement = (
            sa.select(chief.c.dataset, sa.func.count(sa.distinct(chief.c.id)))
            .select_from(joined)
            .where(measurements.c.ended.is_(None), chief.c.dataset.is_not(None), _robust(threat))
            .group_by(chief.c.dataset)
        )
        with catalog.database.read() as connection:
            counts += [(str(dataset), threat, int(count)) for dataset, count in connection.execute(statement)]
    return sorted(counts, key=lambda row: (-row[2], row))


def make_leaderboard(catalog: Catalog, dataset: str, threat: str = "Linf") -> RobustnessBoard:
    """The models of a dataset, ordered by the lowest robust accuracy that anybody measured, the highest first.

    Args:
        catalog: The catalog.
        dataset: In any spelling.
        threat: One of `THREATS`.

    Raises:
        ConfigurationError: If there is no such threat.
    """
    if threat not in THREATS:
        raise ConfigurationError(f"There is no leaderboard for {threat!r}.", hint=f"There are: {', '.join(THREATS)}.")
    name = spell_dataset(dataset)
    epsilon = _EPSILONS.get((threat, name))
    models = _read_entries(catalog, name, threat)
    labels = tell_apart(models)
    rows = []
    for entry in models:
        values = _published(entry, threat)
        reproduced, budget = _reproduced(entry, epsilon) if epsilon is not None else (None, None)
        values["reproduced"] = reproduced
        if any(values[column] is not None for column in COLUMNS[1:]):
            architecture, year = entry["architecture"], entry["year"]
            label = labels[str(entry["id"])]
            rows.append(RobustnessRow(str(entry["id"]), label, architecture, year, values, budget))
    rows.sort(key=lambda row: (-_lowest(row), row.label))
    return RobustnessBoard(name, threat, epsilon, tuple(rows))


def join_chiefs() -> tuple[sa.FromClause, sa.FromClause]:
    """The entries that stand for others, joined with the measured values that count for them."""
    chief = sa.alias(entries, "chief")
    stands = sa.func.coalesce(entries.c.duplicate_of, entries.c.id)
    joined = measurements.join(entries, entries.c.number == measurements.c.entry).join(chief, chief.c.id == stands)
    return chief, joined


def _robust(threat: str) -> sa.ColumnElement[bool]:
    """Whether a measured value is a robust accuracy under a threat."""
    patterns = [f"accuracy.threat={threat}.%"]
    patterns += ["accuracy.corruptions"] if threat == _CORRUPTIONS else []
    patterns += ["evasion.%.robust-accuracy@epsilon=%"] if threat == "Linf" else []
    return sa.or_(*(measurements.c.name.like(pattern) for pattern in patterns))


def _read_entries(catalog: Catalog, dataset: str, threat: str) -> list[dict[str, Any]]:
    """Codes and values, by name, of the models of a dataset; where both are known, our values before published ones."""
    chief, joined = join_chiefs()
    codes = ("id", "key", "name", *DISTINGUISHING, "claimed_accuracy")
    columns = [chief.c[code] for code in dict.fromkeys(codes)]
    statement = (
        sa.select(*columns, measurements.c.name.label("measured"), measurements.c.value)
        .select_from(joined)
        .where(measurements.c.ended.is_(None), ~chief.c.withdrawn, chief.c.dataset == dataset)
        .where(sa.or_(_robust(threat), measurements.c.name == TEST_ACCURACY))
        .order_by(measurements.c.measured_by == "trial", measurements.c.number)
    )
    models: dict[str, dict[str, Any]] = {}
    with catalog.database.read() as connection:
        for row in connection.execute(statement).mappings():
            model = models.setdefault(row["id"], {code: row[code] for code in dict.fromkeys(codes)})
            model[row["measured"]] = row["value"]
    return list(models.values())


def _published(entry: dict[str, Any], threat: str) -> dict[str, float | None]:
    if threat == _CORRUPTIONS:
        standard = entry.get("accuracy.corruptions")
    else:
        standard = entry.get(f"accuracy.threat={threat}.{_STANDARD[threat]}")
    clean = _number(entry.get("accuracy.test"))
    return {
        "clean": clean if clean is not None else _number(entry.get("claimed_accuracy")),
        "reported": _number(entry.get(f"accuracy.threat={threat}.reported")),
        "standard": _number(standard),
        "best_known": _number(entry.get(f"accuracy.threat={threat}.best-known")),
    }


def _reproduced(entry: dict[str, Any], epsilon: float) -> tuple[float | None, float | None]:
    """The lowest robust accuracy of trials within the budget, and their epsilon.

    What withstands a perturbation of at most ``epsilon`` also withstands a smaller one, and a perturbation of this
    length in L2 or L1 is at most as long in L∞: every such trial bounds the robust accuracy in L∞ from above.
    """
    lowest: tuple[float | None, float | None] = (None, None)
    for name, value in entry.items():
        match = _TRIAL.fullmatch(str(name))
        number = _number(value)
        if match is None or number is None or float(match[1]) > epsilon + _SLACK:
            continue
        if lowest[0] is None or number < lowest[0]:
            lowest = (number, float(match[1]))
    return lowest


def _lowest(row: RobustnessRow) -> float:
    """The lowest robust accuracy that is known; what the authors report counts only where nothing else is known."""
    evaluated = [row.values[column] for column in ("standard", "best_known", "reproduced")]
    known = [value for value in evaluated if value is not None]
    return min(known) if known else float(row.values["reported"] or 0.0)


def _number(value: object) -> float | None:
    return None if not isinstance(value, (int, float)) or math.isnan(value) else float(value)
