"""Configurations. The command line and TOML files are two ways into the same models; no option is declared twice.

Field descriptions are the help texts. This module imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from securitynet.datasets.options import ImageOptions, StatedMembers
from securitynet.metrics.defaults import DEFAULT_FPRS
from securitynet.models.sources.references import describe_forms
from securitynet.records import Access, Auxiliary


def split_commas(value: object) -> object:
    """``"a,b"`` becomes ``["a", "b"]``: how lists are written on the command line.

    Commas within brackets, braces or a quoted value belong to an item: ``fgsm.epsilons=[0.01,0.03],pgd.steps=40``.
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
"""Drops repeated values: a measurement's name must occur once."""


class ComputeOptions(BaseModel):
    """Options of every command that computes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, description="Seed of all randomness.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    cache: Path | None = Field(default=None, description="Folder for what can be recomputed ($SECURITYNET_CACHE).")
    data_root: Path | None = Field(default=None, description="Folder with the dataset's files ($SECURITYNET_DATA).")


class DataOptions(ImageOptions, ComputeOptions):
    """Options that say which images."""

    dataset: str | None = Field(
        default=None, description="A name (see `securitynet list datasets`), folder:PATH or parquet:PATH."
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="Convert images to 1 (grey) or 3 (colour) channels."
    )
    image_size: int | None = Field(
        default=None, ge=4, description="Stretch the dataset's images to a square of this many pixels."
    )
    limit: int | None = Field(default=None, ge=8, description="Use at most this many records of each part.")


class AssessConfig(DataOptions):
    """What to assess and how."""

    model: str = Field(description=f"Model reference: {describe_forms()}, or the path of a model file.")
    weights: Path | None = Field(default=None, description="Weights file (safetensors, or a pickle that runs no code).")
    normalize: str | None = Field(
        default=None,
        description="auto, none, half, imagenet, ... or M,M,M/S,S,S. Default: as the model declares, else auto.",
    )
    input_size: int | None = Field(default=None, ge=1, description="Size to which images are resized for the model.")
    output: str | None = Field(
        default=None, description="Name of the output that holds the class scores, where a model has several."
    )
    trust: bool = Field(
        default=False, description="Run the code in the model's file, for formats that are programs (TorchScript)."
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
        description="Assess a model that does not answer the same for the same image: its answers are averaged over "
        "repeats, and all results are marked.",
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
        description="Defense of what the model answers (top-k, rounding, temperature, label-only, memguard), behind "
        "which it is attacked.",
    )
    try_defenses: bool = Field(
        default=False,
        description="Measure what would help: attack the model behind each defense of its answers and, where it is "
        "known how it was trained, train it again with each defense.",
    )
    defenses: Annotated[tuple[str, ...], Commas] = Field(
        default=("all",), description="What --try-defenses tries: defenses, separated by commas; output, training, all."
    )
    configure: Annotated[tuple[str, ...], Commas] = Field(
        default=(),
        description="Settings of attacks, detectors and the defense: NAME.FIELD=VALUE, separated by commas "
        "(lira.shadows.count=64).",
    )
    access: Access | None = Field(
        default=None,
        description="The most that the adversary may see. Default: white-box where there are weights.",
    )
    auxiliary: Annotated[tuple[Auxiliary, ...] | None, Commas] = Field(
        default=None,
        description="The data that the adversary may hold. Default: all that the split provides.",
    )
    auxiliary_dataset: str | None = Field(
        default=None, description="Another dataset, for adversaries that hold out-of-distribution data."
    )
    split: Literal["auto", "public", "four-way"] = Field(
        default="auto",
        description="Who is a member. Default: as the model was trained, else the dataset's own parts.",
    )
    members: StatedMembers = Field(
        default=None,
        description="Who is a member: a file with one image or record a line, or a table with a column file or record. "
        "All others are non-members.",
    )
    non_members: StatedMembers = Field(
        default=None, description="Who is no member, as a file likewise; who is in neither is left out."
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of the split.")
    known: float | None = Field(
        default=None, gt=0, lt=1, description="Share of members and non-members that the adversary knows."
    )
    level: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence level of the intervals.")
    fprs: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Commas, Once] = Field(
        default=DEFAULT_FPRS, description="False-positive rates at which the true-positive rate is reported."
    )
    policy: Path | None = Field(
        default=None, description="TOML file with bounds on measurements; exit code 3 if broken."
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Arithmetic of the target.")
    batch_size: int | None = Field(default=None, ge=1, description="Images in one forward pass, or in one request.")
    max_queries: int | None = Field(
        default=None, ge=1, description="Most distinct images that may be sent to the target."
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds to wait for an endpoint's answer.")
    retries: int = Field(default=5, ge=0, description="How often an endpoint that fails is asked again.")
    rerun: bool = Field(default=False, description="Run trials again that are finished already.")
    out: Path | None = Field(default=None, description="Folder for report.html, result.json and the trial files.")
