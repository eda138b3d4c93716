"""The models that the tables of a study name: by reference, by query of the catalog, or in a list.

This module imports no torch.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securitynet.errors import ConfigurationError
from securitynet.files import read_toml
from securitynet.models.sources.references import list_code, refuse_untyped
from securitynet.results.excluded_entries import ExcludedEntry
from securitynet.studies.definition.file import ModelSource, StudyConfig
from securitynet.studies.definition.paths import resolve_path

if TYPE_CHECKING:
    from securitynet.catalog import Catalog, CatalogEntry

_CLASSIFIER = {"task_type": "classification", "head": "classifier"}
"""What the model of an entry must be to become a target, unless the study filters by these codes itself."""


def refuse_code(study: StudyConfig, trust: Collection[str]) -> None:
    """Raise `ConfigurationError` if the study names Python code that the user does not trust.

    A study is data, which may have been made by others. Code runs only if the user names it outside of the study.

    Args:
        study: The study.
        trust: References that the user trusts, as written in the study.
    """
    settings = study.model_dump(exclude={"description"})
    untrusted = [reference for reference in dict.fromkeys(list_code(settings)) if reference not in trust]
    if untrusted:
        raise ConfigurationError(
            f"The study runs the Python code of {', '.join(untrusted)}, which you have not named yourself.",
            hint=f"Look at it first; if you trust it, add: --trust {shlex.quote(','.join(untrusted))}.",
        )


def list_references(
    study: StudyConfig, source: ModelSource, base: Path, trust: Collection[str] = ()
) -> Iterator[tuple[str, CatalogEntry | None] | ExcludedEntry]:
    """List (reference, entry of the catalog) of the models that a table names, and the entries that it cannot use.

    Args:
        study: The study.
        source: The table.
        base: Folder of the study file.
        trust: Entries (id or key) and references that the user trusts: they may name code, files and addresses.
    """
    if source.list is not None:
        yield from _read_list(study, resolve_path(str(source.list), base), trust)
    elif source.query is not None:
        yield from _query_catalog(study, source, trust)
    elif source.reference is None:
        assert source.catalog is not None  # the configuration has been checked
        yield _reference_of_entry(study, source.catalog, trust)
    else:
        references = (source.reference,) if isinstance(source.reference, str) else source.reference
        for reference in references:
            if source.catalog is None and reference.startswith("catalog:"):
                yield _reference_of_entry(study, reference.partition(":")[2], trust)
            else:
                yield reference, _find_entry(study, source.catalog)


def refuse_unchecked_file(entry: CatalogEntry, file: str, trust: Collection[str]) -> None:
    """Raise `ConfigurationError` if an entry names a file of weights that nothing identifies.

    Args:
        entry: The entry.
        file: The path or URL that it names.
        trust: Entries that the user trusts.
    """
    if entry.checksum is None and not {entry.id, entry.key, f"catalog:{entry.id}"}.intersection(trust):
        raise ConfigurationError(
            f"The catalog's entry {entry.key} names a file of weights, {file}, and no checksum of it.",
            hint=f"If you trust it: add --trust {shlex.quote(entry.id)}, or state weights in its table.",
        )


def _refuse_untrusted(reference: str, origin: str, entry: CatalogEntry | None, trust: Collection[str]) -> None:
    names = {reference, *((entry.id, entry.key, f"catalog:{entry.id}") if entry else ())}
    if not names.intersection(trust):
        remedy = f"add --trust {shlex.quote(entry.id if entry else reference)}"
        refuse_untyped(reference, origin, remedy)


def _read_list(study: StudyConfig, path: Path, trust: Collection[str]) -> Iterator[tuple[str, CatalogEntry | None]]:
    content = read_toml(path)
    rows = content.get("models")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "reference" in row for row in rows):
        raise ConfigurationError(
            f"{path} is not a list of models.", hint="Write one with `securitynet catalog select N --out FILE`."
        )
    for row in rows:
        reference = str(row["reference"])
        entry = _find_entry(study, row.get("catalog"))
        # What the list says beside a trusted entry is not what the entry says.
        own = entry if entry is not None and entry.reference == reference else None
        _refuse_untrusted(reference, f"The list {path.name}", own, trust)
        yield reference, entry


def _query_catalog(
    study: StudyConfig, source: ModelSource, trust: Collection[str]
) -> Iterator[tuple[str, CatalogEntry | None] | ExcludedEntry]:
    with _open_catalog(study) as catalog:
        query = catalog.query(source.query or "", filters=source.filters)
        obstacles = {entry.id: (entry, _find_obstacle(study, source, entry, trust)) for entry in query}
        usable = [entry for entry, obstacle in obstacles.values() if obstacle is None]
        if source.count is not None and usable:
            from securitynet.catalog.selection import select_models

            frame = catalog.to_frame(query)
            frame = frame[frame["id"].isin([entry.id for entry in usable])]
            chosen = select_models(frame, source.count, seed=source.select_seed).chosen
            usable = [catalog.get(identifier) for identifier in chosen["id"]]
    if not obstacles:
        raise _explain_no_match(study, source)
    yield from (obstacle for _, obstacle in obstacles.values() if obstacle is not None)
    for entry in usable:
        assert entry.reference is not None  # it would be an obstacle
        yield entry.reference, entry


def _find_obstacle(
    study: StudyConfig, source: ModelSource, entry: CatalogEntry, trust: Collection[str]
) -> ExcludedEntry | None:
    """Why an entry that a query matches cannot be a target; None if it can."""
    excluded = functools.partial(ExcludedEntry, catalog=entry.id, label=entry.key)
    for name, wanted in _CLASSIFIER.items():
        if name not in source.filters and getattr(entry, name) != wanted:
            stated = getattr(entry, name) or "not stated"
            return excluded(reason=f"its {name.replace('_', ' ')} is {stated}, where a target is a {wanted} model")
    if entry.reference is None:
        return excluded(reason="the entry does not say how to load its model")
    try:
        _refuse_untrusted(entry.reference, f"The catalog's entry {entry.key}", entry, trust)
        if "dataset" not in {**study.data, **source.options}:
            choose_dataset(study, entry)
    except ConfigurationError as error:
        return exclude(entry, error)
    return None


def exclude(entry: CatalogEntry, error: ConfigurationError) -> ExcludedEntry:
    """The record of an entry that an error keeps out of a study.

    Args:
        entry: The entry.
        error: Why it cannot be a target.
    """
    reason = error.reason if isinstance(error, MissingReference) else error.message.rstrip(".")
    return ExcludedEntry(catalog=entry.id, label=entry.key, reason=reason, remedy=error.hint or "")


def _explain_no_match(study: StudyConfig, source: ModelSource) -> ConfigurationError:
    """The error for a query that nothing matches, with the same search as a command."""
    words = shlex.split(source.query or "")
    options = [word for name, value in source.filters.items() for word in _filter_option(name, value)]
    place = ["--db", study.catalog] if study.catalog else []
    command = shlex.join(["securitynet", "catalog", "search", *words, *options, *place])
    return ConfigurationError("No entry of the catalog matches.", hint=f"The same search: {command}")


def _filter_option(name: str, value: Any) -> tuple[str, str]:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"--{name.replace('_', '-')}", text.lower() if isinstance(value, bool) else text


def _reference_of_entry(study: StudyConfig, identifier: str, trust: Collection[str]) -> tuple[str, CatalogEntry]:
    entry = _find_entry(study, identifier)
    assert entry is not None  # an identifier was given
    if entry.reference is None:
        raise ConfigurationError(f"The entry {entry.key} of the catalog does not state how to load its model.")
    _refuse_untrusted(entry.reference, f"The catalog's entry {entry.key}", entry, trust)
    return entry.reference, entry


def _find_entry(study: StudyConfig, identifier: Any) -> CatalogEntry | None:
    if identifier is None:
        return None
    with _open_catalog(study) as catalog:
        return catalog.get(str(identifier))


def _open_catalog(study: StudyConfig) -> Catalog:
    import securitynet.catalog

    return securitynet.catalog.open(study.catalog)


class MissingReference(ConfigurationError):
    """An entry was trained on a dataset that nothing says how to load.

    Args:
        entry: The entry.
        dataset: The dataset.
    """

    def __init__(self, entry: CatalogEntry, dataset: str) -> None:
        self.reason = f"it was trained on {dataset}, and no reference to load that is given"
        super().__init__(
            f"{entry.key} was trained on {dataset}, and no reference to load it is given.",
            hint=f'Write [datasets] with "{dataset}" = "folder:PATH" or another reference.',
        )


def choose_dataset(study: StudyConfig, entry: CatalogEntry | None) -> str | None:
    """Return the dataset to assess a model of the catalog on: the one that it was trained on.

    Raises:
        MissingReference: If nothing says how to load it.
    """
    if entry is None or entry.dataset is None:
        return None
    from securitynet.catalog.known import find_dataset_facts, spell_dataset

    known = {spell_dataset(name): reference for name, reference in study.datasets.items()}
    facts = find_dataset_facts(entry.dataset)
    if facts is not None and facts.reference is not None:
        known.setdefault(facts.name, facts.reference)
    name = spell_dataset(entry.dataset)
    if name not in known:
        raise MissingReference(entry, entry.dataset)
    return known[name]
