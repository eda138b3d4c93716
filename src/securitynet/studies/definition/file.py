"""`StudyConfig`: the content of a study file. This module imports no torch.

A study declares its targets (`ModelSource`, `TrainSource`), their data (``[data]``), attacks and detectors
(`MethodSource`), and seeds. The options of models and data are not declared again here: tables of existing models take
the fields of `AssessConfig`, and tables of models to train the fields of `TrainConfig`. In both, a list where a single
value is expected stands for each of its values in turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from securitynet.assessments.config import AssessConfig, ConfidenceLevel, FalsePositiveRates, Once
from securitynet.errors import ConfigurationError, list_problems
from securitynet.files import read_toml
from securitynet.metrics.defaults import DEFAULT_FPRS
from securitynet.models.training.config import TrainConfig
from securitynet.records import ThreatModel
from securitynet.studies.definition.limits import MOST_SEEDS

TARGET_FIELDS = frozenset(AssessConfig.model_fields) - {
    "model", "attacks", "detectors", "policy", "rerun", "out", "seed", "level", "fprs", "device", "cache", "trust",
    "reference_models", "db", "against", "plugin", "redact",
}  # fmt: skip
"""Fields of `AssessConfig` that determine target and data. (Of ``configure``, only settings of a defense do.)"""

TRAIN_FIELDS = frozenset({*TrainConfig.model_fields, "implant"}) - {
    "out",
    "overwrite",
    "device",
    "architecture",
    "dataset",
}
"""Fields of `TrainConfig` that a study may set."""

Several = tuple[str, ...]


_TAGS = "Tags to restrict attacks to these targets; `benchmark` and `security` also state the purpose of the models."


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class MeasurementSettings(_Table):
    """Options of the metrics."""

    level: ConfidenceLevel = 0.95
    fprs: FalsePositiveRates = DEFAULT_FPRS


class ModelSource(BaseModel):
    """Existing models: by reference, by query of the catalog, or from a list written by ``catalog select``.

    All fields of `AssessConfig` that determine target and data are allowed as well.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    reference: str | Several | None = Field(default=None, description="Model references (or several).")
    catalog: str | None = Field(default=None, description="Entry of the catalog: its id or key.")
    query: str | None = Field(default=None, description="Words to search the catalog for; '' for all entries.")
    filters: dict[str, Any] = Field(default_factory=dict, description="Code -> filter, as for `catalog search`.")
    count: int | None = Field(default=None, ge=1, description="Number of entries to choose, covering the range.")
    select_seed: int = Field(default=0, ge=0, description="Seed of that choice.")
    list: Path | None = Field(default=None, description="File that `catalog select --out` wrote.")
    label: str | None = Field(default=None, description="Name of the target in tables.")
    tags: Several = Field(default=(), description=_TAGS)
    accuracy: float | None = Field(
        default=None, ge=0, le=1, description="Expected test accuracy; default: that in the catalog."
    )
    checksum: str | None = Field(default=None, description="Expected SHA-256 of the weights file, or its beginning.")

    @model_validator(mode="after")
    def _one_kind(self) -> ModelSource:
        given = [name for name in ("reference", "query", "list") if getattr(self, name) is not None]
        if given == [] and self.catalog is not None:
            return self
        if len(given) != 1:
            raise ValueError("give one of reference, catalog, query, list")
        _check_names(self.model_extra or {}, TARGET_FIELDS)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Return the fields of `AssessConfig`; lists are alternatives."""
        return dict(self.model_extra or {})


class TrainSource(BaseModel):
    """Models to train: architecture × dataset × defense × recipe.

    It takes the fields of `TrainConfig`, and further fields of `AssessConfig` for the assessment of the trained model.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    architecture: str | Several = Field(
        description="Architectures: names from `securitynet list architectures`, or references."
    )
    dataset: str | Several | None = Field(default=None, description="Datasets; default: that of [data].")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, max_length=MOST_SEEDS, description="Training seeds."
    )
    label: str | None = Field(default=None, description="Name of the targets in tables.")
    tags: Several = Field(default=(), description=_TAGS)

    @model_validator(mode="after")
    def _known(self) -> TrainSource:
        _check_names(self.model_extra or {}, (TRAIN_FIELDS | TARGET_FIELDS) - {"weights", "seed"})
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Return the fields of `TrainConfig` and `AssessConfig`; lists are alternatives."""
        return dict(self.model_extra or {})


class MethodSource(_Table):
    """Attacks or detectors with their settings."""

    name: Annotated[Several, Field(min_length=1)] = Field(
        description="A name, a family, standard or all; or a list of them."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="Fields of the method.")
    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="Field (with dots where nested) -> values; every combination is a trial."
    )
    threat_models: Several = Field(
        default=(), description="Threat models, such as black-box/shadow. Default: all that apply."
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, max_length=MOST_SEEDS, description="Seeds of these trials; default: the study's."
    )
    only: Several = Field(default=(), description="Only targets with one of these tags.")

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict):
            value = {**value, **{key: _listed(value[key]) for key in ("name", "threat_models", "only") if key in value}}
        return value

    @model_validator(mode="after")
    def _sensible(self) -> MethodSource:
        for text in self.threat_models:
            parse_threat_model(text)
        for field, values in self.grid.items():
            if not values:
                raise ValueError(f"the grid of {field} is empty")
        return self


class RunSettings(_Table):
    """Options of a run; none of them changes a result."""

    executor: Literal["local", "ray"] = Field(default="local", description="Where trials run.")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Trials to run in parallel. Default: one per GPU, or one per two cores.",
    )
    threads: int | None = Field(
        default=None, ge=1, le=10_000, description="Threads of a worker. Default: its share of the cores."
    )
    pin: bool = Field(default=False, description="Bind each worker to cores of its own.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    gpus: Annotated[tuple[int, ...], Once] = Field(default=(), description="GPUs to spread workers over. Default: all.")
    time_limit: float | None = Field(default=None, gt=0, description="Time limit of a trial in seconds.")
    setup_time_limit: float | None = Field(
        default=None, gt=0, description="Time limit in seconds for opening, training and shared work."
    )
    memory_limit: float | None = Field(
        default=None, gt=0, description="Memory limit of a worker in GiB, above which its trial fails."
    )
    attempts: int = Field(
        default=3, ge=1, description="Number of attempts at a trial whose worker dies, before it counts as failed."
    )
    address: str | None = Field(default=None, description="Ray: address of the cluster; default: one on this machine.")
    cpus_per_worker: float | None = Field(default=None, gt=0, description="Ray: CPUs that a worker reserves.")
    gpus_per_worker: float | None = Field(
        default=None, ge=0, description="Ray: GPUs, or the share of one, that a worker reserves."
    )


class StudyConfig(_Table):
    """A study: its targets, its attacks and detectors, its data and seeds."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="Short name, for folders.")
    description: str = Field(default="", description="What it is for.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, max_length=MOST_SEEDS, description="Seeds of trials."
    )
    out: str | None = Field(default=None, description="Folder or URL of the results.")
    catalog: str | None = Field(default=None, description="Database of the catalog; default: the user's own.")
    data: dict[str, Any] = Field(default_factory=dict, description="Fields of AssessConfig for all targets.")
    datasets: dict[str, str] = Field(
        default_factory=dict, description="Name of a dataset in the catalog -> reference to load it."
    )
    accuracy_tolerance: float = Field(
        default=0.02, ge=0, le=1, description="Largest difference of a target's accuracy from its stated one."
    )
    on_mismatch: Literal["note", "skip", "fail"] = Field(
        default="note",
        description="What to do with a target that fails a check (accuracy at chance or far from the stated one, "
        "another class order, outputs that vary): note it, skip its trials with the reason, or count them as failed.",
    )
    measures: MeasurementSettings = Field(
        default=MeasurementSettings(), description="Confidence level and false-positive rates."
    )
    models: tuple[ModelSource, ...] = Field(default=(), description="Targets that exist.")
    train: tuple[TrainSource, ...] = Field(default=(), description="Targets to be trained.")
    attacks: tuple[MethodSource, ...] = Field(default=(), description="Attacks.")
    detectors: tuple[MethodSource, ...] = Field(default=(), description="Backdoor detectors.")
    run: RunSettings = Field(default=RunSettings(), description="Options of runs that the command line does not set.")

    @model_validator(mode="after")
    def _complete(self) -> StudyConfig:
        if not self.models and not self.train:
            raise ValueError("there are no targets: give [[models]] or [[train]]")
        if not self.attacks and not self.detectors:
            raise ValueError("there is nothing to run on the targets: give [[attacks]] or [[detectors]]")
        _check_names(self.data, TARGET_FIELDS)
        return self


def parse_threat_model(text: str) -> ThreatModel:
    """Parse a threat model such as ``black-box/shadow``. Raises ``ValueError`` if it is invalid."""
    access, _, auxiliary = text.partition("/")
    try:
        return ThreatModel.model_validate({"access": access, "auxiliary": auxiliary})
    except ValidationError as error:
        raise ValueError(
            f"{text!r} is not a threat model; write ACCESS/AUXILIARY, such as black-box/partial or white-box/shadow"
        ) from error


def read_study(path: Path) -> StudyConfig:
    """Read the study in a TOML file.

    Raises:
        ConfigurationError: If it cannot be read or is invalid; the message names all problems.
    """
    return parse_study(read_toml(path), str(path))


def parse_study(content: dict[str, Any], name: str = "the study") -> StudyConfig:
    """Parse the content of a TOML file to a study; see `read_study`."""
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        problems = []
        for problem in list_problems(error):
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                message = "there is no such setting"
            elif problem["type"] == "missing":
                message = "is missing"
            problems.append(f"{_where(problem['loc'])}{message[:1].lower()}{message[1:]}")
        raise ConfigurationError(
            f"{name}: {'; '.join(problems)}.", hint="See docs/studies.md, or the ready files in studies/."
        ) from error


def _where(location: tuple[int | str, ...]) -> str:
    words = ""
    for part in location:
        words += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if words else ''}{part}"
    return f"{words}: " if words else ""


def _check_names(given: dict[str, Any], allowed: frozenset[str]) -> None:
    unknown = sorted(set(given) - allowed)
    if unknown:
        raise ValueError(f"there is no setting {', '.join(unknown)}; there are: {', '.join(sorted(allowed))}")
