"""The models that the tables of a study name: by reference, by query of the catalog, or in a list.

This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securitynet.errors import ConfigurationError
from securitynet.files import read_toml
from securitynet.models.sources.references import refuse_code
from securitynet.studies.definition.file import ModelSource, StudyConfig
from securitynet.studies.definition.paths import resolve_path

if TYPE_CHECKING:
    from securitynet.catalog import Catalog, CatalogEntry

LOADABLE = {"reference": "any", "head": "classifier", "task_type": "classification"}
"""Filters that a query of a study has besides its own: as in `catalog select`, classifiers that can be loaded."""


def list_references(study: StudyConfig, source: ModelSource, base: Path) -> Iterator[tuple[str, CatalogEntry | None]]:
    """List (reference, entry of the catalog) of the models that a table names.

    Args:
        study: The study.
        source: The table.
        base: Folder of the study file.
    """
    if source.list is not None:
        yield from _read_list(study, resolve_path(str(source.list), base))
    elif source.query is not None:
        yield from _query_catalog(study, source)
    elif source.reference is None:
        assert source.catalog is not None  # the configuration has been checked
        yield _reference_of_entry(study, source.catalog)
    else:
        references = (source.reference,) if isinstance(source.reference, str) else source.reference
        for reference in references:
            if source.catalog is None and reference.startswith("catalog:"):
                yield _reference_of_entry(study, reference.partition(":")[2])
            else:
                yield reference, _find_entry(study, source.catalog)


def _read_list(study: StudyConfig, path: Path) -> Iterator[tuple[str, CatalogEntry | None]]:
    content = read_toml(path)
    rows = content.get("models")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "reference" in row for row in rows):
        raise ConfigurationError(
            f"{path} is not a list of models.", hint="Write one with `securitynet catalog select N --out FILE`."
        )
    for row in rows:
        yield str(row["reference"]), _find_entry(study, row.get("catalog"))


def _query_catalog(study: StudyConfig, source: ModelSource) -> Iterator[tuple[str, CatalogEntry | None]]:
    filters = {**LOADABLE, **source.filters}
    with _open_catalog(study) as catalog:
        query = catalog.query(source.query or "", filters=filters)
        if source.count is None:
            entries = list(query)
        else:
            from securitynet.catalog.selection import select

            chosen = select(catalog.to_frame(query), source.count, seed=source.select_seed).chosen
            entries = [catalog.get(identifier) for identifier in chosen["id"]]
    if not entries:
        raise _explain_no_match(study, source, filters)
    for entry in entries:
        assert entry.reference is not None  # filtered
        refuse_code(entry.reference, f"The catalog's entry {entry.key}")
        yield entry.reference, entry


def _explain_no_match(study: StudyConfig, source: ModelSource, filters: dict[str, Any]) -> ConfigurationError:
    """The error for a query that nothing matches, which names the filters that the study adds and shows them."""
    import shlex

    words = shlex.split(source.query or "")
    options = [word for name, value in filters.items() for word in _filter_option(name, value)]
    place = ["--db", study.catalog] if study.catalog else []
    command = shlex.join(["securitynet", "catalog", "search", *words, *options, *place])
    added = {name: value for name, value in LOADABLE.items() if name not in source.filters}
    said = ", ".join(f"{name} = {value}" for name, value in added.items())
    return ConfigurationError(
        "No entry of the catalog matches"
        + (f" (a study takes classifiers that can be loaded; it adds {said})." if added else "."),
        hint=f"The same search: {command}",
    )


def _filter_option(name: str, value: Any) -> tuple[str, str]:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"--{name.replace('_', '-')}", text.lower() if isinstance(value, bool) else text


def _reference_of_entry(study: StudyConfig, identifier: str) -> tuple[str, CatalogEntry]:
    entry = _find_entry(study, identifier)
    assert entry is not None  # an identifier was given
    if entry.reference is None:
        raise ConfigurationError(f"The entry {entry.key} of the catalog does not state how to load its model.")
    refuse_code(entry.reference, f"The catalog's entry {entry.key}")
    return entry.reference, entry


def _find_entry(study: StudyConfig, identifier: Any) -> CatalogEntry | None:
    if identifier is None:
        return None
    with _open_catalog(study) as catalog:
        return catalog.get(str(identifier))


def _open_catalog(study: StudyConfig) -> Catalog:
    import securitynet.catalog

    return securitynet.catalog.open(study.catalog)


def choose_dataset(study: StudyConfig, entry: CatalogEntry | None) -> str | None:
    """Return the dataset to assess a model of the catalog on: the one that it was trained on."""
    if entry is None or entry.dataset is None:
        return None
    from securitynet.catalog.known import dataset_facts, dataset_name

    known = {dataset_name(name): reference for name, reference in study.datasets.items()}
    facts = dataset_facts(entry.dataset)
    if facts is not None and facts.reference is not None:
        known.setdefault(facts.name, facts.reference)
    if entry.dataset not in known:
        raise ConfigurationError(
            f"{entry.key} was trained on {entry.dataset}, and no reference to load it is given.",
            hint=f'Write [datasets] with "{entry.dataset}" = "folder:PATH" or another reference.',
        )
    return known[entry.dataset]
