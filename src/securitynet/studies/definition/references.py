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

CATALOG_DATASETS = {
    "CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": "svhn", "STL-10": "stl10", "Fashion-MNIST": "fmnist",
    "CelebA": "celeba", "UTKFace": "utkface", "CUB-200-2011": "cub200", "ImageNet-1k": "imagenet",
}  # fmt: skip
"""Names in the catalog of the datasets that can be loaded by name."""


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
    # As in `catalog select`: classifiers that can be loaded.
    filters = {"reference": "any", "head": "classifier", "task_type": "classification", **source.filters}
    with _open_catalog(study) as catalog:
        query = catalog.query(source.query or "", filters=filters)
        if source.count is None:
            entries = list(query)
        else:
            from securitynet.catalog.selection import select

            chosen = select(catalog.to_frame(query), source.count, seed=source.select_seed).chosen
            entries = [catalog.get(identifier) for identifier in chosen["id"]]
    if not entries:
        raise ConfigurationError(
            "No entry of the catalog matches.", hint="Try the query with `securitynet catalog search`."
        )
    for entry in entries:
        assert entry.reference is not None  # filtered
        refuse_code(entry.reference, f"The catalog's entry {entry.key}")
        yield entry.reference, entry


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
    from securitynet.catalog.known import dataset_name

    known = {**CATALOG_DATASETS, **{dataset_name(name): reference for name, reference in study.datasets.items()}}
    if entry.dataset not in known:
        raise ConfigurationError(
            f"{entry.key} was trained on {entry.dataset}, and no reference to load it is given.",
            hint=f'Write [datasets] with "{entry.dataset}" = "folder:PATH" or another reference.',
        )
    return known[entry.dataset]
