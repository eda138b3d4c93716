"""Results that others published, which the package carries as tables of facts.

``data/timm_results.csv`` (timm's results), ``data/robustbench.csv`` (RobustBench's models) and
``data/robust_transfer.csv`` (robust ImageNet models of Salman et al.) are compact tables of the package's own making:
numbers and bibliographic facts, no text of their sources. ``data/published_sources.csv`` states for each where the
facts come from, under which licence they are published, and when they were read. ``securitynet catalog import
timm-results FOLDER`` and ``robustbench FOLDER`` read a newer checkout of either
(`securitynet.catalog.importers.published`).
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files

from securitynet.catalog.store import Measured

TIMM = "timm-results"
ROBUSTBENCH = "robustbench"
ROBUST_TRANSFER = "robust-transfer"
TEST_ACCURACY = "accuracy.test"
TOP5 = "accuracy.top5"
_TABLES = {TIMM: "timm_results.csv", ROBUSTBENCH: "robustbench.csv", ROBUST_TRANSFER: "robust_transfer.csv"}


@dataclass(frozen=True)
class PublishedModel:
    """The published results of one model.

    Attributes:
        name: Its name at its source; for RobustBench ``DATASET:THREAT:NAME``.
        facts: What else is stated, as text by column: image size, title, venue, ...
        values: Name of a measurement -> value. Accuracies are shares in [0, 1].
    """

    name: str
    facts: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    def measured(self, source: str) -> tuple[Measured, ...]:
        """The values, as the catalog stores them.

        Args:
            source: Where they were published.
        """
        return tuple(Measured(name, value, "published", source) for name, value in self.values.items())


@dataclass(frozen=True)
class PublishedSource:
    """Where the facts of a table come from.

    Attributes:
        address: Web page of the source.
        license: Licence under which it is published, as an SPDX name.
        read: Date on which the facts were read, in ISO 8601.
    """

    address: str
    license: str
    read: str

    def __str__(self) -> str:
        return f"{self.address} (read {self.read})"


@functools.cache
def describe_source(table: str) -> PublishedSource:
    """Where the facts of a packaged table come from.

    Args:
        table: ``timm-results``, ``robustbench`` or ``robust-transfer``.
    """
    rows = {row["table"]: row for row in _read("published_sources.csv")}
    row = rows[_TABLES[table]]
    return PublishedSource(row["address"], row["license"], row["read"])


@functools.cache
def load_packaged(table: str) -> dict[str, tuple[PublishedModel, ...]]:
    """Name of a model -> its rows in a packaged table; timm tests some models at several image sizes.

    Args:
        table: ``timm-results`` or ``robustbench``.
    """
    models: dict[str, tuple[PublishedModel, ...]] = {}
    for row in _read(_TABLES[table]):
        numbers = {name: float(text) for name, text in row.items() if "." in name and text}
        facts = {name: text for name, text in row.items() if "." not in name and name != "name" and text}
        models[row["name"]] = (*models.get(row["name"], ()), PublishedModel(row["name"], facts, numbers))
    return models


def choose_at_size(models: Iterable[PublishedModel], size: int | None) -> PublishedModel | None:
    """Of the results of one model, those at its own image size; if there are none, those at the smallest size.

    Args:
        models: The results at each size.
        size: Height of the model's input in pixels, if known.
    """
    by_size = {int(model.facts["size"]): model for model in models}
    if not by_size:
        return None
    return by_size.get(size or 0) or by_size[min(by_size)]


def _read(name: str) -> Iterator[dict[str, str]]:
    path = files("securitynet.catalog") / "data" / name
    with path.open(encoding="utf-8") as stream:
        yield from csv.DictReader(stream)
