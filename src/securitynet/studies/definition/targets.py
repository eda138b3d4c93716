"""The targets of a study: its tables of models, expanded into one `SubjectPlan` each. This module imports no torch."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from securitynet.assessments.config import AssessConfig
from securitynet.datasets.options import ImageOptions
from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.files import read_toml, stable_hash
from securitynet.models.sources.references import parse_reference
from securitynet.models.training.config import TrainConfig
from securitynet.studies.definition.file import SUBJECT_FIELDS, TRAIN_FIELDS, ModelSource, StudyConfig, TrainSource
from securitynet.studies.definition.file_digests import Stamps

if TYPE_CHECKING:
    from securitynet.catalog import Catalog, CatalogEntry

DATASETS_OF_THE_CATALOG = {
    "CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": "svhn", "STL-10": "stl10", "Fashion-MNIST": "fmnist",
    "CelebA": "celeba", "UTKFace": "utkface", "CUB-200-2011": "cub200", "ImageNet-1k": "imagenet",
}  # fmt: skip
"""What the catalog calls the datasets that can be loaded by name."""

_LISTS = frozenset({"auxiliary"})
"""Fields of `AssessConfig` that are lists themselves."""

_FILES = ("python", "onnx", "outputs")
_FOLDERS = ("folder", "parquet")
_OF_BOTH = frozenset({"channels", "image_size", "limit", "data_root", *ImageOptions.model_fields})
_LISTS_OF_RECORDS = ("members", "non_members")


@dataclass(frozen=True)
class SubjectPlan:
    """A target with its data, as declared: nothing of it has been loaded.

    Attributes:
        key: Digest of what is declared, with that of the files it names.
        label: How people call it.
        options: Fields of `AssessConfig`, as JSON.
        train: Those fields of `TrainConfig` that are given, as JSON, if it is to be trained.
        tags: Words by which attacks are restricted.
        catalog: Id of its entry.
        codes: What the catalog says of it.
        accuracy: Expected test accuracy.
        checksum: Expected digest of the weights file.
        obstacle: Why it can't be opened, if that is plain now.
    """

    key: str
    label: str
    options: dict[str, Any]
    train: dict[str, Any] | None = None
    tags: frozenset[str] = frozenset()
    catalog: str | None = None
    codes: dict[str, Any] = field(default_factory=dict)
    accuracy: float | None = None
    checksum: str | None = None
    obstacle: str | None = None

    @property
    def train_key(self) -> str | None:
        """Digest of what decides the trained weights."""
        return None if self.train is None else stable_hash(self.train, 16)

    def declared(self) -> dict[str, Any]:
        """What is declared, without the folders of this machine."""
        named = {name: _without_folder(name, value) for name, value in self.options.items() if name != "data_root"}
        return named if self.train is None else {**named, "train": _without(self.train, "data_root")}


def subjects_of(study: StudyConfig, base: Path, stamps: Stamps) -> list[SubjectPlan]:
    """All targets of a study, each once, in the order of the file.

    Args:
        study: The study.
        base: Folder that relative paths start from: the study file's.
        stamps: Digests of the files that are named.

    Raises:
        ConfigurationError: If a table makes no sense; it is named.
        SecurityNetError: If the catalog is asked for and cannot be read.
    """
    found: dict[str, SubjectPlan] = {}
    for number, source in enumerate(study.models, start=1):
        with _told(f"models[{number}]"):
            for subject in _of_models(study, source, base, stamps):
                found.setdefault(subject.key, subject)
    for number, recipe in enumerate(study.train, start=1):
        with _told(f"train[{number}]"):
            for subject in _of_recipes(study, recipe, base, stamps):
                found.setdefault(subject.key, subject)
    return list(found.values())


class _told:  # noqa: N801 (used like a function)
    """Puts the table before the message of an error."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, SecurityNetError):
            raise ConfigurationError(f"{self.where}: {error.message}", hint=error.hint) from error


def _of_models(study: StudyConfig, source: ModelSource, base: Path, stamps: Stamps) -> Iterator[SubjectPlan]:
    for reference, entry in _references(study, source, base):
        options = {**study.data, **source.options}
        dataset = options.get("dataset") or _dataset_of(study, entry)
        if dataset is not None:
            options["dataset"] = dataset
        for chosen in alternatives(options):
            yield _subject(
                {"model": _absolute_reference(reference, base), **chosen},
                base,
                stamps,
                label=source.label or entry_name(entry) or _short_label(reference, chosen),
                tags=source.tags,
                entry=entry,
                accuracy=entry.claimed_accuracy if source.accuracy is None and entry else source.accuracy,
                checksum=source.checksum,
            )


def _of_recipes(study: StudyConfig, source: TrainSource, base: Path, stamps: Stamps) -> Iterator[SubjectPlan]:
    options = {**study.data, **source.options}
    if source.dataset is not None:
        options["dataset"] = source.dataset
    options = {**options, "architecture": source.architecture, "seed": source.seeds}
    varied = sorted(name for name, value in options.items() if isinstance(value, list | tuple) and len(value) > 1)
    for chosen in alternatives(options):
        if chosen.get("dataset") is None:
            raise ConfigurationError("Which dataset should be trained on?", hint="Give dataset, here or under [data].")
        chosen["dataset"] = _absolute_dataset(chosen["dataset"], base, chosen.get("data_root"))
        training = {name: value for name, value in chosen.items() if name in TRAIN_FIELDS | {"architecture", "dataset"}}
        rest = {n: v for n, v in chosen.items() if n in SUBJECT_FIELDS and (n not in TRAIN_FIELDS or n in _OF_BOTH)}
        if training.get("defense") in (None, "none"):
            training.pop("defense", None)
        elif _changes_answers(training["defense"]):
            rest |= {name: training.pop(name) for name in ("defense", "configure") if name in training}
        if training.get("split") == "auto":
            training.pop("split")
        # Only what is given: a field that a later version adds must not make another target of this one.
        train = _validated(TrainConfig, training).model_dump(mode="json", exclude_unset=True)
        words = [str(chosen[name]) for name in ("architecture", "dataset") if name not in varied]
        words += [_words(name, chosen.get(name)) for name in varied]
        yield _subject(
            {"model": f"arch:{train['architecture']}", **rest},
            base,
            stamps,
            label=" ".join([source.label] if source.label and not varied else [source.label or "", *words]).strip(),
            tags=source.tags,
            train=train,
        )


def _subject(
    options: dict[str, Any],
    base: Path,
    stamps: Stamps,
    *,
    label: str,
    tags: Iterable[str],
    train: dict[str, Any] | None = None,
    entry: CatalogEntry | None = None,
    accuracy: float | None = None,
    checksum: str | None = None,
) -> SubjectPlan:
    obstacle = None
    options = {name: value for name, value in options.items() if value is not None}
    for name in ("dataset", "auxiliary_dataset"):
        if name in options:
            options[name] = _absolute_dataset(options[name], base, options.get("data_root"))
    for name in ("weights", *_LISTS_OF_RECORDS):
        if name in options:
            options[name] = str(_absolute(str(options[name]), base))
    config = _validated(AssessConfig, options).model_dump(
        mode="json", include={"model", *SUBJECT_FIELDS}, exclude_unset=True
    )
    if "dataset" not in config and not config["model"].startswith("outputs:"):
        raise ConfigurationError(
            f"Which images should {label} be assessed on?", hint="Give dataset, in its table or under [data]."
        )
    digests = {}
    for what, path in _paths(config):
        digest = stamps.of(path)
        if digest is None:
            obstacle = obstacle or f"{what} is missing: {path}"
        digests[what] = digest
    if obstacle is None and checksum is not None and "weights" in config:
        plain = checksum.lower().removeprefix("sha256:")
        if not str(digests["weights"]).startswith(plain):
            obstacle = (
                f"the weights have the checksum {str(digests['weights'])[:16]}…, where {plain[:16]}… was expected"
            )
    named = {name: _without_folder(name, value) for name, value in config.items() if name != "data_root"}
    key = stable_hash(
        {"options": named, "files": digests, "train": train and _without(train, "data_root"), "expected": checksum}, 16
    )
    return SubjectPlan(
        key=key,
        label=label,
        options=config,
        train=train,
        tags=frozenset(tags),
        catalog=entry.id if entry else None,
        codes=entry.known() if entry else _purpose(tags),
        accuracy=accuracy,
        checksum=checksum,
        obstacle=obstacle,
    )


def _purpose(tags: Iterable[str]) -> dict[str, Any]:
    """What the models are for, where their tags say it."""
    named = sorted({"benchmark", "security"}.intersection(tags))
    return {"purpose": named[0]} if len(named) == 1 else {}


def alternatives(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the values where a list is given."""
    names = list(options)
    values = [
        list(value) if isinstance(value, list | tuple) and name not in _LISTS else [value]
        for name, value in options.items()
    ]
    for combination in itertools.product(*values):
        yield dict(zip(names, combination, strict=True))


def _changes_answers(defense: str) -> bool:
    """Whether a defense is one of what a model answers, and not one to train with."""
    from securitynet.defenses import DEFENSES

    return bool(DEFENSES.get(defense).stage == "output")


def _references(study: StudyConfig, source: ModelSource, base: Path) -> Iterator[tuple[str, CatalogEntry | None]]:
    """(reference, entry of the catalog) of the models that a table names."""
    if source.list is not None:
        yield from _listed(study, _absolute(str(source.list), base))
    elif source.query is not None:
        yield from _queried(study, source)
    elif source.reference is None:
        assert source.catalog is not None  # the configuration has been checked
        yield _of_entry(study, source.catalog)
    else:
        references = (source.reference,) if isinstance(source.reference, str) else source.reference
        for reference in references:
            if source.catalog is None and reference.startswith("catalog:"):
                yield _of_entry(study, reference.partition(":")[2])
            else:
                yield reference, _entry(study, source.catalog)


def _listed(study: StudyConfig, path: Path) -> Iterator[tuple[str, CatalogEntry | None]]:
    content = read_toml(path)
    rows = content.get("models")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "reference" in row for row in rows):
        raise ConfigurationError(
            f"{path} is no list of models.", hint="Write one with `securitynet catalog select N --out FILE`."
        )
    for row in rows:
        yield str(row["reference"]), _entry(study, row.get("catalog"))


def _queried(study: StudyConfig, source: ModelSource) -> Iterator[tuple[str, CatalogEntry | None]]:
    # As `catalog select`: what can be loaded, and classifies.
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
        yield entry.reference, entry


def _of_entry(study: StudyConfig, identifier: str) -> tuple[str, CatalogEntry]:
    entry = _entry(study, identifier)
    assert entry is not None  # an identifier was given
    if entry.reference is None:
        raise ConfigurationError(f"The catalog's entry {entry.key} does not say how to load its model.")
    return entry.reference, entry


def _entry(study: StudyConfig, identifier: Any) -> CatalogEntry | None:
    if identifier is None:
        return None
    with _open_catalog(study) as catalog:
        return catalog.get(str(identifier))


def _open_catalog(study: StudyConfig) -> Catalog:
    import securitynet.catalog

    return securitynet.catalog.open(study.catalog)


def entry_name(entry: CatalogEntry | None) -> str | None:
    """How an entry is called in tables."""
    return None if entry is None else entry.key


def _dataset_of(study: StudyConfig, entry: CatalogEntry | None) -> str | None:
    """The dataset on which a model of the catalog is assessed: the one it was trained on."""
    if entry is None or entry.dataset is None:
        return None
    from securitynet.catalog.known import dataset_name

    known = {**DATASETS_OF_THE_CATALOG, **{dataset_name(name): reference for name, reference in study.datasets.items()}}
    if entry.dataset not in known:
        raise ConfigurationError(
            f"{entry.key} was trained on {entry.dataset}, and it is not said how to load that.",
            hint=f'Write [datasets] with "{entry.dataset}" = "folder:PATH" or another reference.',
        )
    return known[entry.dataset]


def _short_label(reference: str, options: Mapping[str, Any]) -> str:
    words = [str(_without_folder("model", reference))]
    if "weights" in options:
        words.append(Path(str(options["weights"])).stem)
    return " ".join(words)


def _words(name: str, value: Any) -> str:
    return str(value) if name in ("architecture", "dataset") else f"{name}={value}"


def _validated(model: type[Any], values: dict[str, Any]) -> BaseModel:
    try:
        validated: BaseModel = model.model_validate(values)
        return validated
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, p['loc']))}: {p['msg'].removeprefix('Value error, ')}" for p in error.errors()
        )
        raise ConfigurationError(f"{problems}.") from error


def _absolute(text: str, base: Path) -> Path:
    path = Path(os.path.expandvars(text)).expanduser()
    return path if path.is_absolute() else (base / path).resolve()


def _absolute_reference(text: str, base: Path) -> str:
    reference = parse_reference(text)
    if reference.scheme not in _FILES:
        return text
    return str(reference.model_copy(update={"name": str(_absolute(reference.name, base))}))


def _absolute_dataset(text: str, base: Path, root: str | None) -> str:
    scheme, colon, path = str(text).partition(":")
    return f"{scheme}:{_absolute(path, base)}" if colon and scheme in _FOLDERS and root is None else str(text)


def _paths(options: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """(what it is, path) of the files and folders that options name."""
    for name in ("weights", *_LISTS_OF_RECORDS):
        if name in options:
            yield name, Path(options[name])
    reference = parse_reference(options["model"])
    if reference.scheme in _FILES:
        yield "model", Path(reference.name)
    for name in ("dataset", "auxiliary_dataset"):
        scheme, colon, path = str(options.get(name) or "").partition(":")
        if colon and scheme in _FOLDERS:
            yield name, Path(options.get("data_root") or "") / path


def _without_folder(name: str, value: Any) -> Any:
    if name in ("weights", *_LISTS_OF_RECORDS):
        return Path(str(value)).name
    if name == "model" and value.partition(":")[0] in _FILES:
        scheme, _, rest = str(value).partition(":")
        return f"{scheme}:{rest.rpartition('/')[2]}"
    if name in ("dataset", "auxiliary_dataset") and str(value).partition(":")[0] in _FOLDERS:
        scheme, _, path = str(value).partition(":")
        return f"{scheme}:{Path(path).name}"
    return json.loads(json.dumps(value))


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: _without_folder(name, value) for name, value in values.items() if name not in names}
