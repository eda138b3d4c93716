"""The targets of a study: its tables of models, expanded to one `TargetPlan` each. This module imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from securitynet.assessments.config import AssessConfig
from securitynet.catalog.weights import TENSORS, locate_entry_weights, names_weights
from securitynet.datasets.options import ImageOptions
from securitynet.errors import ConfigurationError, SecurityNetError, describe_problems
from securitynet.files import hash_stably
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.versions import describe_builder
from securitynet.models.training.config import TrainConfig
from securitynet.records import Record
from securitynet.results.excluded_entries import ExcludedEntry, describe_excluded
from securitynet.studies.definition.file import TARGET_FIELDS, TRAIN_FIELDS, ModelSource, StudyConfig, TrainSource
from securitynet.studies.definition.file_digests import FileDigests
from securitynet.studies.definition.limits import MOST_TARGETS, check_combinations, check_count
from securitynet.studies.definition.obstacles import find_loading_obstacle
from securitynet.studies.definition.paths import (
    LISTS_OF_RECORDS,
    list_paths,
    resolve_architecture,
    resolve_dataset,
    resolve_path,
    resolve_reference,
    strip_folder,
    strip_folders,
)
from securitynet.studies.definition.references import (
    choose_dataset,
    exclude,
    list_references,
    refuse_code,
    refuse_unchecked_file,
)

if TYPE_CHECKING:
    from securitynet.catalog import CatalogEntry

_LISTS = frozenset({"auxiliary"})
"""Fields of `AssessConfig` that are lists themselves."""

WEIGHTS_URL = "weights_url"
"""Key under which the address of an entry's weights travels among the options of a target."""

_ASSESSED = TARGET_FIELDS - {"architecture"}
"""Fields of `AssessConfig` in a table of models to train: shadow models are trained as these are."""

_OF_BOTH = frozenset({"channels", "image_size", "limit", "data_root", *ImageOptions.model_fields})


class TargetPlan(Record):
    """A declared target with its data, of which nothing has been loaded yet; it is sent to workers unchanged.

    Attributes:
        key: Digest of the declaration, including those of the files it names.
        label: Name for people.
        options: Fields of `AssessConfig`, as JSON types.
        train: The given fields of `TrainConfig`, as JSON types, if the target is to be trained; else None.
        tags: Tags by which attacks are restricted.
        catalog: Id of its entry in the catalog.
        codes: Codes of that entry.
        accuracy: Expected test accuracy.
        checksum: Expected digest of the weights file.
        enforced: Digest that its entry states for the weights, which are compared with it when they are read.
        weights_url: Where its entry says that the weights are, if they must be downloaded first.
        obstacle: Why it cannot be opened, if that is known already.
    """

    key: str
    label: str
    options: dict[str, Any]
    train: dict[str, Any] | None = None
    tags: frozenset[str] = frozenset()
    catalog: str | None = None
    codes: dict[str, Any] = Field(default_factory=dict)
    accuracy: float | None = None
    checksum: str | None = None
    enforced: str | None = None
    weights_url: str | None = None
    obstacle: str | None = None

    @property
    def train_key(self) -> str | None:
        """Digest of everything that determines the trained weights."""
        if self.train is None:
            return None
        reference = str(self.train["architecture"])
        if ":" not in reference:
            return hash_stably(self.train, 16)
        # Another version of a factory or a library makes another network.
        return hash_stably({**self.train, "version": describe_builder(parse_reference(reference))}, 16)

    def declared(self) -> dict[str, Any]:
        """The declaration, without folders of this machine."""
        named = {name: strip_folder(name, value) for name, value in self.options.items() if name != "data_root"}
        return named if self.train is None else {**named, "train": strip_folders(self.train, "data_root")}


@dataclass(frozen=True)
class ExpandedTargets:
    """The targets of a study, and what it asks for and cannot use.

    Attributes:
        targets: All targets, each once, in the order of the file.
        excluded: Entries of the catalog that cannot be targets.
    """

    targets: list[TargetPlan]
    excluded: tuple[ExcludedEntry, ...] = ()


def expand_targets(
    study: StudyConfig, base: Path, digests: FileDigests, trust: Collection[str] = ()
) -> ExpandedTargets:
    """List all targets of a study.

    An entry of the catalog that a query or a list names, and that cannot be a target, is left out with its reason.

    Args:
        study: The study.
        base: Folder of the study file, which relative paths start from.
        digests: Digests of the files that the study names.
        trust: Entries of the catalog and references that the user trusts.

    Raises:
        ConfigurationError: If a table is invalid, which the message names, or names code that is not trusted; or if
            nothing is left.
        SecurityNetError: If the catalog is needed and cannot be read.
    """
    refuse_code(study, trust)
    targets: dict[str, TargetPlan] = {}
    excluded: dict[str, ExcludedEntry] = {}
    for number, source in enumerate(study.models, start=1):
        with _name_table(f"models[{number}]"):
            for target in _expand_models(study, source, base, digests, trust):
                if isinstance(target, ExcludedEntry):
                    excluded.setdefault(target.catalog, target)
                else:
                    targets.setdefault(target.key, target)
                    check_count(len(targets), MOST_TARGETS, "targets")
    for number, recipe in enumerate(study.train, start=1):
        with _name_table(f"train[{number}]"):
            for target in _expand_recipes(study, recipe, base, digests):
                targets.setdefault(target.key, target)
                check_count(len(targets), MOST_TARGETS, "targets")
    if not targets:
        why = "; ".join(line.strip() for line in describe_excluded(list(excluded.values())))
        raise ConfigurationError(f"The study has no target. {why}", hint="See `securitynet catalog search`.")
    return ExpandedTargets(list(targets.values()), tuple(excluded.values()))


@contextmanager
def _name_table(table: str) -> Iterator[None]:
    """Put the table's name before the message of an error."""
    try:
        yield
    except SecurityNetError as error:
        raise ConfigurationError(f"{table}: {error.message}", hint=error.hint) from error


def _expand_models(
    study: StudyConfig, source: ModelSource, base: Path, digests: FileDigests, trust: Collection[str]
) -> Iterator[TargetPlan | ExcludedEntry]:
    several = source.query is not None or source.list is not None
    for item in list_references(study, source, base, trust):
        if isinstance(item, ExcludedEntry):
            yield item
            continue
        reference, entry = item
        try:
            yield from list(_expand_model(study, source, base, digests, trust, reference, entry))
        except ConfigurationError as error:
            if not several or entry is None:
                raise
            yield exclude(entry, error)


def _expand_model(
    study: StudyConfig,
    source: ModelSource,
    base: Path,
    digests: FileDigests,
    trust: Collection[str],
    reference: str,
    entry: CatalogEntry | None,
) -> Iterator[TargetPlan]:
    reference = resolve_reference(reference, base)
    options = {**study.data, **source.options}
    own = {} if "weights" in options else _own_weights(reference, entry)
    for location in own.values():
        assert entry is not None  # it states the location
        refuse_unchecked_file(entry, location, trust)
    options = {**own, **options}
    dataset = options.get("dataset") or choose_dataset(study, entry)
    if dataset is not None:
        options["dataset"] = dataset
    for chosen in expand_alternatives(options):
        yield _plan_target(
            {"model": reference, **chosen},
            base,
            digests,
            label=source.label or (entry and entry.key) or _make_label(reference, chosen),
            tags=source.tags,
            entry=entry,
            accuracy=entry.claimed_accuracy if source.accuracy is None and entry else source.accuracy,
            checksum=source.checksum,
        )


def _expand_recipes(study: StudyConfig, source: TrainSource, base: Path, digests: FileDigests) -> Iterator[TargetPlan]:
    options = {**study.data, **source.options}
    if source.dataset is not None:
        options["dataset"] = source.dataset
    architectures = [resolve_architecture(name, base) for name in _list_names(source.architecture)]
    options = {**options, "architecture": architectures, "seed": source.seeds}
    varied = sorted(name for name, value in options.items() if isinstance(value, list | tuple) and len(value) > 1)
    for chosen in expand_alternatives(options):
        if chosen.get("dataset") is None:
            raise ConfigurationError("No dataset is given to train on.", hint="Give dataset, here or under [data].")
        chosen["dataset"] = resolve_dataset(chosen["dataset"], base, chosen.get("data_root"))
        training = {name: value for name, value in chosen.items() if name in TRAIN_FIELDS | {"architecture", "dataset"}}
        rest = {n: v for n, v in chosen.items() if n in _ASSESSED and (n not in TRAIN_FIELDS or n in _OF_BOTH)}
        if training.get("defense") in (None, "none"):
            training.pop("defense", None)
        elif _changes_answers(training["defense"]):
            rest |= {name: training.pop(name) for name in ("defense", "configure") if name in training}
        if training.get("split") == "auto":
            training.pop("split")
        # Only the given fields, so that a field added by a later version does not change the key of this target.
        train = _validate(TrainConfig, training).model_dump(mode="json", exclude_unset=True)
        shown = {**chosen, **{name: strip_folder(name, chosen[name]) for name in ("architecture", "dataset")}}
        words = [str(shown[name]) for name in ("architecture", "dataset") if name not in varied]
        if source.label is None:  # what distinguishes it from a target of the same network
            plain = [shown.get(name) for name in ("defense", "backdoor") if name not in varied]
            words += [str(value) for value in plain if value not in (None, "none")]
        words += [_describe_option(name, shown.get(name)) for name in varied]
        yield _plan_target(
            {"model": _reference_of(train["architecture"]), **rest},
            base,
            digests,
            label=" ".join([source.label] if source.label and not varied else [source.label or "", *words]).strip(),
            tags=source.tags,
            train=train,
        )


def _plan_target(
    options: dict[str, Any],
    base: Path,
    digests: FileDigests,
    *,
    label: str,
    tags: Iterable[str],
    train: dict[str, Any] | None = None,
    entry: CatalogEntry | None = None,
    accuracy: float | None = None,
    checksum: str | None = None,
) -> TargetPlan:
    """Plan one target: make paths absolute, check files, and derive the key from the declaration."""
    url = str(options.pop(WEIGHTS_URL, "")) or None
    config = _validate(AssessConfig, _resolve_options(options, base)).model_dump(
        mode="json", include={"model", *TARGET_FIELDS}, exclude_unset=True
    )
    if "dataset" not in config and not parse_reference(config["model"]).declaration.recorded:
        raise ConfigurationError(
            f"No dataset is given to assess {label} on.", hint="Give dataset, in its table or under [data]."
        )
    file_digests = {what: digests.compute(path) for what, path in list_paths(config)}
    enforced = entry.checksum if entry and train is None else None
    if enforced is None and checksum is not None and checksum.startswith(f"{TENSORS}:"):
        enforced = checksum
    lacks_weights = "weights" not in config and url is None and not names_weights(config["model"])
    named = {name: strip_folder(name, value) for name, value in config.items() if name != "data_root"}
    recipe = train and strip_folders(train, "data_root")
    declared = {"options": named, "files": file_digests, "train": recipe, "expected": checksum}
    # Only where they are given, so that targets of earlier versions keep their keys. A target whose weights were read
    # before they were compared with the entry's digest is opened again.
    declared |= {} if url is None else {"weights_url": url}
    declared |= {"enforced": enforced} if enforced is not None and "weights" in config else {}
    key = hash_stably(declared, 16)
    return TargetPlan(
        key=key,
        label=label,
        options=config,
        train=train,
        tags=frozenset(tags),
        catalog=entry.id if entry else None,
        codes=_describe_entry(entry) if entry else _read_purpose(tags),
        accuracy=accuracy,
        checksum=checksum,
        enforced=enforced,
        weights_url=url,
        obstacle=find_loading_obstacle(config, file_digests, checksum, enforced, entry if lacks_weights else None),
    )


def _resolve_options(options: dict[str, Any], base: Path) -> dict[str, Any]:
    """The options that have a value, with relative paths made absolute."""
    options = {name: value for name, value in options.items() if value is not None}
    for name in ("dataset", "auxiliary_dataset"):
        if name in options:
            options[name] = resolve_dataset(options[name], base, options.get("data_root"))
    if "architecture" in options:
        options["architecture"] = resolve_architecture(str(options["architecture"]), base)
    for name in ("weights", *LISTS_OF_RECORDS):
        if name in options:
            options[name] = str(resolve_path(str(options[name]), base))
    return options


def _own_weights(reference: str, entry: CatalogEntry | None) -> dict[str, str]:
    """The option that loads the weights that an entry states, for a reference that names a network only."""
    if entry is None or names_weights(reference):
        return {}
    location = locate_entry_weights(entry)
    if location is None:
        return {}
    return {WEIGHTS_URL if location.startswith(("https://", "http://")) else "weights": location}


def _describe_entry(entry: CatalogEntry) -> dict[str, Any]:
    """The codes of an entry, without the folder in which this machine keeps its weights."""
    codes = entry.known()
    file = codes.get("weights_file")
    if file is not None and not str(file).startswith(("https://", "http://")):
        codes["weights_file"] = Path(str(file)).name
    return codes


def _read_purpose(tags: Iterable[str]) -> dict[str, Any]:
    """Return the purpose of the models, if their tags state it."""
    named = sorted({"benchmark", "security"}.intersection(tags))
    return {"purpose": named[0]} if len(named) == 1 else {}


def expand_alternatives(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values that are given as lists."""
    names = list(options)
    values = [
        list(value) if isinstance(value, list | tuple) and name not in _LISTS else [value]
        for name, value in options.items()
    ]
    check_combinations(values, MOST_TARGETS, "targets")
    for combination in itertools.product(*values):
        yield dict(zip(names, combination, strict=True))


def _reference_of(architecture: str) -> str:
    return architecture if ":" in architecture else f"arch:{architecture}"


def _list_names(names: object) -> list[str]:
    return [str(name) for name in names] if isinstance(names, list | tuple) else [str(names)]


def _changes_answers(defense: str) -> bool:
    """Return whether a defense is an output defense, not a training defense."""
    from securitynet.defenses import DEFENSES

    return bool(DEFENSES.get(defense).stage == "output")


def _make_label(reference: str, options: Mapping[str, Any]) -> str:
    words = [str(strip_folder("model", reference))]
    if "weights" in options:
        words.append(Path(str(options["weights"])).stem)
    return " ".join(words)


def _describe_option(name: str, value: Any) -> str:
    return str(value) if name in ("architecture", "dataset") else f"{name}={value}"


def _validate(model: type[Any], values: dict[str, Any]) -> BaseModel:
    """Validate settings with ``model``; the `ConfigurationError` names all problems."""
    try:
        validated: BaseModel = model.model_validate(values)
        return validated
    except ValidationError as error:
        raise ConfigurationError(f"{describe_problems(error)}.") from error
