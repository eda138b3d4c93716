"""The models of one dataset by every attack that was measured on them, as others published it and as trials reproduced.

`leaderboard` orders models by robust accuracy under one threat; this module sets membership inference, model stealing,
inversion, attribute inference and evasion side by side.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.known import spell_dataset
from securitynet.catalog.leaderboard import RankedModel, join_chiefs
from securitynet.catalog.names import DISTINGUISHING, tell_apart
from securitynet.catalog.published import TEST_ACCURACY
from securitynet.catalog.tables import measurements
from securitynet.errors import ConfigurationError

_HEADLINES = (
    (re.compile(r"membership\.(?!(blind|copies)\b)[^.]+\.auc"), False),
    (re.compile(r"stealing\.(.+\.)?agreement(@.*)?"), False),
    (re.compile(r"(inversion|attribute)\.(.+\.)?accuracy(@.*)?"), False),
    (re.compile(r"evasion\.(.+\.)?robust-accuracy(@.*)?"), True),
    (re.compile(r"accuracy\.(corruptions|threat=\w+\.[\w-]+)"), True),
)
"""Names of values that say how well an attack works, and whether a higher one is better for the model's owner."""


@dataclass(frozen=True)
class AttackCell:
    """An attack on a model.

    Attributes:
        published: The worst value that others published, None if there is none.
        reproduced: The worst that trials of one's own measured, None if there is none.
    """

    published: float | None = None
    reproduced: float | None = None


@dataclass(frozen=True)
class AttackRow(RankedModel):
    """A model on the board.

    Attributes:
        clean: Test accuracy, if known.
        cells: Name of a measured value -> what is known.
    """

    clean: float | None
    cells: dict[str, AttackCell]


@dataclass(frozen=True)
class AttackBoard:
    """Models of one dataset and the attacks on them.

    Attributes:
        dataset: The dataset, as the catalog spells it.
        order: The measured value by which models are ordered, the most resistant first.
        measures: Names of all measured values, those of most models first.
        rows: Models with at least one of them.
    """

    dataset: str
    order: str | None
    measures: tuple[str, ...]
    rows: tuple[AttackRow, ...]


def is_better_high(name: str) -> bool | None:
    """Whether the owner of a model wants a value to be high; None if it is no headline value of an attack.

    Args:
        name: Of a measured value.
    """
    return next((high for pattern, high in _HEADLINES if pattern.fullmatch(name)), None)


def list_attack_boards(catalog: Catalog) -> list[tuple[str, int]]:
    """Dataset and number of models on which an attack was measured, the most models first.

    Args:
        catalog: The catalog.
    """
    chief, joined = join_chiefs()
    statement = (
        sa.select(chief.c.dataset, chief.c.id, measurements.c.name)
        .select_from(joined)
        .where(measurements.c.ended.is_(None), ~chief.c.withdrawn, chief.c.dataset.is_not(None), _is_of_an_attack())
        .distinct()
    )
    models: dict[str, set[str]] = {}
    with catalog.database.read() as connection:
        for dataset, entry, name in connection.execute(statement):
            if is_better_high(str(name)) is not None:
                models.setdefault(str(dataset), set()).add(str(entry))
    counts = ((dataset, len(ids)) for dataset, ids in models.items())
    return sorted(counts, key=lambda row: (-row[1], row[0]))


def make_attack_board(catalog: Catalog, dataset: str, order: str | None = None) -> AttackBoard:
    """The models of a dataset with all attacks on them.

    Args:
        catalog: The catalog.
        dataset: In any spelling.
        order: The measured value by which to order; by default the one that most models have.

    Raises:
        ConfigurationError: If no model of the dataset has the value to order by.
    """
    name = spell_dataset(dataset)
    models, cells = _read(catalog, name)
    counts = Counter(measure for of_model in cells.values() for measure in of_model)
    measures = tuple(sorted(counts, key=lambda measure: (-counts[measure], measure)))
    if order is not None and order not in counts:
        raise ConfigurationError(
            f"No model of {name} has a value {order!r}.",
            hint=f"There are: {', '.join(measures[:12])}." if measures else "Publish trials: securitynet study publish",
        )
    chosen = order or (measures[0] if measures else None)
    attacked = [model for id, model in models.items() if id in cells]
    labels = tell_apart(attacked)
    rows = [
        AttackRow(id, labels[id], model["architecture"], model["year"], model["clean"], cells[id])
        for model in attacked
        if (id := str(model["id"]))
    ]
    rows.sort(key=lambda row: (*_place(row, chosen), row.label))
    return AttackBoard(name, chosen, measures, tuple(rows))


def _place(row: AttackRow, order: str | None) -> tuple[bool, float]:
    """Sorts models without the value last, and the others by the worst that is known."""
    cell = row.cells.get(order or "")
    if order is None or cell is None:
        return True, 0.0
    high = bool(is_better_high(order))
    worst = _find_worst((value for value in (cell.published, cell.reproduced) if value is not None), high)
    return False, -worst if high else worst


def _find_worst(values: Iterable[float], high: bool) -> float:
    return min(values) if high else max(values)


def _is_of_an_attack() -> sa.ColumnElement[bool]:
    """What may be a headline value, as far as the database can tell."""
    patterns = ("membership.%.auc", "stealing.%agreement%", "inversion.%accuracy%", "attribute.%accuracy%",
                "evasion.%robust-accuracy%", "accuracy.threat=%", "accuracy.corruptions")  # fmt: skip
    return sa.or_(*(measurements.c.name.like(pattern) for pattern in patterns))


def _read(catalog: Catalog, dataset: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, AttackCell]]]:
    """Codes of the models of a dataset, and their headline values, by the ids of their entries."""
    chief, joined = join_chiefs()
    codes = tuple(dict.fromkeys(("id", "key", "name", *DISTINGUISHING, "claimed_accuracy")))
    columns = (*(chief.c[code] for code in codes), measurements.c.name.label("measured"))
    statement = (
        sa.select(*columns, measurements.c.value, measurements.c.measured_by)
        .select_from(joined)
        .where(measurements.c.ended.is_(None), ~chief.c.withdrawn, chief.c.dataset == dataset)
        .where(sa.or_(_is_of_an_attack(), measurements.c.name == TEST_ACCURACY))
        .order_by(measurements.c.number)
    )
    models: dict[str, dict[str, Any]] = {}
    known: dict[str, dict[tuple[str, str], float]] = {}
    with catalog.database.read() as connection:
        for row in connection.execute(statement).mappings():
            id, name, value = str(row["id"]), str(row["measured"]), row["value"]
            model = models.setdefault(id, {code: row[code] for code in codes} | {"clean": row["claimed_accuracy"]})
            if value is None or math.isnan(value):
                continue
            high = is_better_high(name)
            if name == TEST_ACCURACY:
                model["clean"] = value
            elif high is not None:
                of_model, key = known.setdefault(id, {}), (name, str(row["measured_by"]))
                of_model[key] = _find_worst((of_model.get(key, float(value)), float(value)), high)
    cells = {
        id: {
            name: AttackCell(of_model.get((name, "published")), of_model.get((name, "trial")))
            for name in dict.fromkeys(name for name, _ in of_model)
        }
        for id, of_model in known.items()
    }
    return models, cells
