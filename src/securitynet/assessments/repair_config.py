"""`RepairConfig`: the configuration of the `repair` command; importing it loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from securitynet.assessments.config import Commas, DataOptions, Once
from securitynet.models.sources.references import describe_forms


class RepairConfig(DataOptions):
    """The configuration of one repair."""

    model: str = Field(description=f"Model reference: {describe_forms()}.")
    weights: Path | None = Field(default=None, description="Weights file (safetensors, or a pickle that runs no code).")
    out: Path | None = Field(
        default=None, description="Weights file to write, NAME.safetensors; NAME.json goes beside."
    )
    defense: Annotated[tuple[str, ...], Commas, Once] = Field(
        default=("fine-pruning", "unlearning"),
        min_length=1,
        description="Defenses to apply, in this order: unlearning, fine-pruning, anp, i-bau.",
    )
    configure: Annotated[tuple[str, ...], Commas] = Field(
        default=(),
        description="Settings of the defenses and of the search for triggers as NAME.FIELD=VALUE, separated by commas, "
        "such as fine-pruning.epochs=40,neural-cleanse.epochs=20.",
    )
    images: int | None = Field(
        default=None,
        ge=20,
        description="Largest number of clean images that the repair uses. Default: 5000, and no more than the model "
        "was trained on if its record says how many.",
    )
    known: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the test images that the repair may use; the others judge it. Default: half of them, or "
        "the shadow records of a four-way split.",
    )
    scan: bool = Field(default=True, description="Search the model for triggers before and after the repair.")
    normalize: str | None = Field(
        default=None, description="Normalisation, as for assess. Default: as the model declares, else auto."
    )
    input_size: int | None = Field(default=None, ge=1, description="Size to which images are resized for the model.")
    num_classes: int | None = Field(default=None, ge=2, description="Number of classes. Default: as in the weights.")
    weight_set: str | None = Field(default=None, description="Which weights of a file with several sets.")
    overwrite: bool = Field(default=False, description="Replace a file that is there already.")
