"""Configurations, which the command line and TOML files fill in alike, so that no option is declared twice.

Field descriptions are the help texts. This module imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from securitynet.datasets.options import DatasetName, ImageOptions, StatedMembers
from securitynet.files import expand_home
from securitynet.metrics.defaults import DEFAULT_FPRS, MOST_FPRS
from securitynet.models.sources.references import describe_forms
from securitynet.records import Access, Auxiliary


def split_commas(value: object) -> object:
    """Split a list as written on the command line: ``"a,b"`` becomes ``["a", "b"]``.

    Commas within brackets, braces or quotes do not separate items: ``fgsm.epsilons=[0.01,0.03],pgd.steps=40``.
    """
    if not isinstance(value, str):
        return value
    items, depth, quote = [""], 0, ""
    for character in value:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and (depth > 0 or items[-1].endswith("=")):
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        if character == "," and depth <= 0 and not quote:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


Commas = BeforeValidator(split_commas)
Once = AfterValidator(lambda values: tuple(dict.fromkeys(values)))
"""Removes repeated values, because the name of a measurement must be unique."""

ConfidenceLevel = Annotated[float, Field(gt=0.5, lt=1, description="Confidence level of the intervals.")]
FalsePositiveRates = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], ...],
    Field(max_length=MOST_FPRS, description="False-positive rates at which the true-positive rate is reported."),
    Once,
]


class ComputeOptions(BaseModel):
    """Options of every command that computes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, description="Seed of all randomness.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    cache: Path | None = Field(default=None, description="Folder for what can be recomputed ($SECURITYNET_CACHE).")
    data_root: Path | None = Field(default=None, description="Folder with the dataset's files ($SECURITYNET_DATA).")

    @field_validator("cache", "policy", "out", check_fields=False)  # the latter two are fields of subclasses
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return None if path is None else expand_home(path)


class DataOptions(ImageOptions, ComputeOptions):
    """Options that select the images."""

    dataset: DatasetName | None = Field(
        default=None, description="A name (see `securitynet list datasets`), folder:PATH or parquet:PATH."
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="Convert images to 1 (grey) or 3 (colour) channels."
    )
    image_size: int | None = Field(
        default=None, ge=4, description="Stretch the dataset's images to a square of this many pixels."
    )
    limit: int | None = Field(default=None, ge=8, description="Largest number of records to use of each part.")


class AssessConfig(DataOptions):
    """The configuration of an assessment."""

    model: str = Field(description=f"Model reference: {describe_forms()}, or the path of a model file.")
    weights: Path | None = Field(default=None, description="Weights file (safetensors, or a pickle that runs no code).")
    architecture: str | None = Field(
        default=None,
        description="Architecture of models that attacks train like the target: a name from `securitynet list "
        "architectures`, timm:NAME, torchvision:NAME, pytorchcv:NAME or python:FILE:FACTORY. Default: the target's "
        "own, where it is known.",
    )
    normalize: str | None = Field(
        default=None,
        description="auto, none, half, imagenet, ... or M,M,M/S,S,S. Default: as the model declares, else auto.",
    )
    input_size: int | None = Field(default=None, ge=1, description="Size to which images are resized for the model.")
    output: str | None = Field(
        default=None, description="Name of the output that holds the class scores, where a model has several."
    )
    trust: bool = Field(
        default=False,
        description="Run the code in the model's file, for formats that are programs (TorchScript); open what an entry "
        "of the catalog names even if that is code, a file or an address.",
    )
    head: Literal["auto", "logits", "log-probabilities", "probabilities", "sigmoid"] = Field(
        default="auto", description="What the model emits."
    )
    num_classes: int | None = Field(
        default=None, ge=2, description="Number of classes. Default: what the weights have."
    )
    weight_set: str | None = Field(
        default=None,
        description="Which weights of a file with several sets: a name in the file, or average (EMA, SWA). Default: "
        "those as trained.",
    )
    allow_random: bool = Field(
        default=False,
        description="Assess a model whose outputs for the same image vary: its outputs are averaged over "
        "repetitions, and all results are marked.",
    )
    attacks: Annotated[tuple[str, ...], Commas] = Field(
        default=("standard",),
        description="Attacks or families, separated by commas; standard (all that need no more than one pass over the "
        "records), all, or none.",
    )
    detectors: Annotated[tuple[str, ...], Commas] = Field(
        default=("standard",), description="Backdoor detectors, separated by commas; standard, all, or none."
    )
    defense: str | None = Field(
        default=None,
        description="Output defense (top-k, rounding, temperature, label-only, memguard), behind which it is attacked.",
    )
    try_defenses: bool = Field(
        default=False,
        description="Measure what would help: attack the model behind each output defense and, if it is "
        "known how it was trained, retrain it with each training defense.",
    )
    defenses: Annotated[tuple[str, ...], Commas] = Field(
        default=("standard",),
        description="Defenses for --try-defenses, separated by commas; output, training, all, or standard (all output "
        "defenses, and one setting of each training defense that does not train a second network).",
    )
    defense_trainings: Annotated[int, Field(ge=0)] = Field(
        default=8,
        description="Trainings with each defense of --try-defenses, for the risk of the most exposed records: 4 or "
        "more, or 0 to measure averages only. Default: 8.",
    )
    reference_models: Annotated[tuple[str, ...], Commas] = Field(
        default=(),
        description="Pre-trained models in place of shadow models, for rmia, rmia-offline and reference-calibration: "
        "references, or REFERENCE=WEIGHTS, separated by commas.",
    )
    configure: Annotated[tuple[str, ...], Commas] = Field(
        default=(),
        description="Settings of attacks, detectors and the defense: NAME.FIELD=VALUE, separated by commas "
        "(lira.shadows.count=64).",
    )
    access: Access | None = Field(
        default=None,
        description="Largest access of the adversary. Default: white-box if there are weights.",
    )
    auxiliary: Annotated[tuple[Auxiliary, ...] | None, Commas] = Field(
        default=None,
        description="The data that the adversary may hold. Default: all that the split provides.",
    )
    auxiliary_dataset: DatasetName | None = Field(
        default=None, description="Another dataset, for adversaries that hold out-of-distribution data."
    )
    split: Literal["auto", "public", "four-way"] = Field(
        default="auto",
        description="How members are determined. Default: as the model was trained, else the dataset's own parts.",
    )
    members: StatedMembers = Field(
        default=None,
        description="Members: a file with one image or record per line, or a table with a column file or record. "
        "All others are non-members.",
    )
    non_members: StatedMembers = Field(
        default=None, description="Non-members, as a file of the same form; records in neither file are left out."
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of the split.")
    known: float | None = Field(
        default=None, gt=0, lt=1, description="Share of members and non-members that the adversary knows."
    )
    level: ConfidenceLevel = 0.95
    fprs: Annotated[FalsePositiveRates, Commas] = DEFAULT_FPRS
    policy: Path | None = Field(
        default=None, description="TOML file with bounds on measurements; exit code 3 if one is not met."
    )
    against: Path | None = Field(
        default=None,
        description="Result of an earlier version of the model, a folder or its result.json, to compare with.",
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Arithmetic of the target.")
    batch_size: int | None = Field(default=None, ge=1, description="Images per forward pass or request.")
    max_queries: int | None = Field(
        default=None, ge=1, description="Largest number of distinct images that may be sent to the target."
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds to wait for a response of an endpoint.")
    retries: int = Field(default=5, ge=0, description="How often a failed request to an endpoint is repeated.")
    plugin: Annotated[tuple[Path, ...], Commas] = Field(
        default=(),
        description="Python files with attacks, defenses, datasets or architectures of your own, separated by commas.",
    )
    redact: bool = Field(
        default=False,
        description="Leave folders, and the names of user and machine, out of report.html and result.json.",
    )
    mlflow: str | None = Field(
        default=None,
        description="Log the result to MLflow at this tracking URI: the address of a server, or sqlite:///FILE.db.",
    )
    wandb: str | None = Field(
        default=None, description="Log the result to Weights & Biases: PROJECT or ENTITY/PROJECT."
    )
    rerun: bool = Field(default=False, description="Run finished trials again.")
    out: Path | None = Field(default=None, description="Folder for report.html, result.json and the trial files.")
    db: str | None = Field(
        default=None, description="The catalog's database for catalog:ENTRY: a URL or a SQLite file."
    )


OPTION_GROUPS = {
    "The model": (
        "weights", "db", "architecture", "normalize", "input_size", "output", "head", "num_classes", "weight_set",
        "trust", "allow_random",
    ),
    "The images": (
        "dataset", "data_root", "channels", "image_size", "resize", "crop", "interpolation", "image_column",
        "label_column", "limit",
    ),
    "Who is a member, and what the adversary knows": (
        "members", "non_members", "split", "split_seed", "known", "access", "auxiliary", "auxiliary_dataset",
        "max_queries",
    ),
    "Attacks, detectors and defenses": (
        "attacks", "detectors", "configure", "reference_models", "defense", "try_defenses", "defenses",
        "defense_trainings", "plugin",
    ),
    "Results": ("out", "policy", "against", "level", "fprs", "redact", "mlflow", "wandb", "rerun"),
    "Computing": ("device", "seed", "precision", "batch_size", "cache", "timeout", "retries"),
}  # fmt: skip
"""Title -> options that stand together in the help of the command line."""
