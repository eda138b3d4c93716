"""Curated facts: architecture papers by family, and datasets. Each fact names the table it comes from.

A person corrects these tables, not code; the collectors and importers read entries' missing codes from them.
"""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from securitynet.catalog.codebook import find_code
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.text import split_words

ARCHITECTURES = "curated:architectures.csv"
DATASETS = "curated:datasets.csv"
SECURITY = "curated:security_models.csv"
PAPERS = "curated:security_papers.csv"

_FAMILY_CODES = (
    "family", "architecture_type", "elements", "paper_title", "paper_link", "venue", "venue_type", "year", "authors",
    "affiliations", "affiliation_types", "countries",
)  # fmt: skip
_PUBLICATION = frozenset({"paper_title", "paper_link", "venue", "year", "authors"})
_COLUMN_OF = {"paper_title": "title", "paper_link": "link"}
_DATASET_CODES = (
    "topic_category",
    "granularity",
    "training_size",
    "classes",
    "image_height",
    "image_width",
    "image_channels",
)


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset of the curated table.

    Attributes:
        name: As the catalog spells it.
        codes: The codes that hold for every model trained on it.
        reference: Name by which SecurityNet loads it; None if it cannot be loaded by name.
    """

    name: str
    codes: dict[str, Any]
    reference: str | None = None


def find_family_codes(architecture: str) -> dict[str, Any]:
    """What the curated table says about the family of an architecture: its codes; empty if the family is not in it.

    Args:
        architecture: Its name in any of the libraries (``resnet50``, ``vit_base_patch16_224``, ``swin_v2_t``).
    """
    lowered = architecture.lower().replace("-", "_")
    for pattern, codes in _families():
        if pattern.search(lowered):
            return dict(codes)
    return {}


def find_dataset_facts(name: str) -> DatasetFacts | None:
    """The dataset of this name or alias, whatever its case and punctuation; None if the table lacks it."""
    return _datasets().get("".join(split_words(name)))


def spell_dataset(name: str) -> str:
    """The catalog's spelling of a dataset's name; the name itself if it is not known."""
    facts = find_dataset_facts(name)
    return facts.name if facts else name


def complete_entry(codes: dict[str, Any], given: dict[str, str] | None = None) -> tuple[CatalogEntry, dict[str, str]]:
    """An entry with what is missing filled from the curated tables, and the sources of what was filled.

    Args:
        codes: What is known; it goes before the tables.
        given: Sources already known.
    """
    codes = {name: value for name, value in codes.items() if value is not None and value != ()}
    sources = dict(given or {})
    dataset = find_dataset_facts(str(codes.get("dataset", "")))
    if dataset:
        codes["dataset"] = dataset.name
        # A model that ends in features has no classes, whatever its dataset has.
        apart = {"classes"} if codes.get("head") in ("none", "embedding") else set()
        facts = {name: value for name, value in dataset.codes.items() if name not in apart}
        _fill(codes, sources, facts, f"{DATASETS} ({dataset.name})")
    title = codes.get("paper_title")
    if title:
        _fill(codes, sources, find_paper_codes(str(title)), PAPERS)
    architecture = codes.get("architecture")
    if architecture:
        family = find_family_codes(str(architecture))
        # The facts of one paper must not be mixed with those of another; a security model's is not its architecture's.
        if not _PUBLICATION.isdisjoint(codes) or codes.get("purpose") == "security":
            family = {name: family[name] for name in ("family", "architecture_type", "elements") if name in family}
        _fill(codes, sources, family, f"{ARCHITECTURES} ({family.get('family', '')})")
    return CatalogEntry(**codes), sources


def find_security_codes(source: str, name: str) -> dict[str, Any]:
    """What the curated table says about a model of security research; empty for a benchmark model."""
    for row in _rows("security_models.csv"):
        if row["source"] == source and re.search(row["pattern"], name):
            codes = {
                column: find_code(column).parse(row[column]) for column in row if column not in ("source", "pattern")
            }
            return {"purpose": "security"} | {
                column: value for column, value in codes.items() if value not in (None, ())
            }
    return {}


def find_paper_codes(title: str) -> dict[str, Any]:
    """What the curated table says about a paper of security research: affiliations, their types and countries.

    Args:
        title: Its title, in any case and punctuation; codes are empty if the table lacks it.
    """
    return dict(_papers().get("".join(split_words(title)), {}))


def list_families() -> list[str]:
    """All families of the curated table."""
    return [codes["family"] for _, codes in _families()]


def _fill(codes: dict[str, Any], sources: dict[str, str], facts: dict[str, Any], source: str) -> None:
    for name, value in facts.items():
        if name not in codes:
            codes[name] = value
            sources[name] = source


@functools.cache
def _families() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    rows = []
    for row in _rows("architectures.csv"):
        codes = {name: find_code(name).parse(row[_COLUMN_OF.get(name, name)]) for name in _FAMILY_CODES}
        # A pattern matches at the start of a word of the name: `resnet` in `gluon_resnet50`, not in `tresnet`.
        pattern = re.compile(rf"(?:^|[_./])(?:{row['patterns']})")
        rows.append((pattern, {name: value for name, value in codes.items() if value not in (None, ())}))
    return rows


@functools.cache
def _papers() -> dict[str, dict[str, Any]]:
    names = ("affiliations", "affiliation_types", "countries")
    return {
        "".join(split_words(row["title"])): {name: find_code(name).parse(row[name]) for name in names if row[name]}
        for row in _rows("security_papers.csv")
    }


@functools.cache
def _datasets() -> dict[str, DatasetFacts]:
    datasets = {}
    for row in _rows("datasets.csv"):
        known = {name: find_code(name).parse(row[name]) for name in _DATASET_CODES if row[name]}
        facts = DatasetFacts(row["name"], known, row["reference"] or None)
        for name in (row["name"], *row["aliases"].split(";")):
            datasets["".join(split_words(name))] = facts
    return datasets


@functools.cache
def _rows(name: str) -> list[dict[str, str]]:
    path = files("securitynet.catalog") / "data" / name
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
