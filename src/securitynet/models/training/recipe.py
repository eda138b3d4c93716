"""`Recipe`: how a network is trained. The default is ML-Doctor's; importing this loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from securitynet.errors import ConfigurationError, describe_problems
from securitynet.records import Record

OptimizerName = Literal["sgd", "nesterov", "adam", "adamw"]
ScheduleName = Literal["steps", "steps-50-100", "cosine", "triangle", "constant"]

STEPS = (50, 100)
"""Epochs at which the learning rate of ML-Doctor's targets drops (section 5.3), for ``steps-50-100``."""
TRIANGLE = (0.2, 0.23, 0.07)
"""The schedule ``triangle``: factor at the start, share of the training until its peak, factor at the end."""
AugmentName = Literal["none", "flip", "crop-flip", "shift-flip"]
LossName = Literal["cross-entropy", "mse", "kl"]
PrecisionName = Literal["fp32", "bf16", "auto"]


class RecipeOptions(Record):
    """The settings of a `Recipe`, shared with the configuration of the `train` command.

    The default is the recipe of ML-Doctor's target models (Liu et al., section 5.3): SGD with momentum 0.9 and weight
    decay 5e-4, batches of 64, and 300 epochs, of which 50 run at a learning rate of 1e-2, 50 at 1e-3 and 200 at 1e-4.
    With another number of epochs, the phases keep their proportions; ``steps-50-100`` keeps their lengths, as the paper
    does where it varies the number of epochs (section 6.3). The description of each field is its help text.

    Attributes:
        epochs: Passes over the training records.
        batch_size: Records per batch.
        optimizer: Name of the optimizer.
        learning_rate: Base learning rate.
        schedule: How the learning rate changes; see `learning_rate_at`.
        momentum: Momentum of SGD; first beta of Adam; in [0, 1).
        weight_decay: Weight decay of the optimizer.
        augment: Augmentation of batches; see `securitynet.models.training.augment.augment`.
        loss: Loss; see `securitynet.models.training.losses.compute_batch_loss`.
        temperature: Temperature of both softmaxes in the loss ``kl``.
        label_smoothing: Label smoothing of the cross-entropy, in [0, 1).
        clip_norm: Largest Euclidean norm of a batch's gradient; None for no clipping.
        patience: Epochs without improvement until early stopping; 0 trains all epochs.
        validation_share: Share of the training records held out for early stopping.
        bias_rate: Factor of the learning rate of batch norms' biases. Their weight decay is divided by it.
        lookahead: Whether weights are pulled to their running average; see
            `securitynet.models.training.lookahead.Lookahead`.
        precision: Arithmetic of the forward and backward passes; weights and their updates are always float32.
        seed: Seed of all randomness.
    """

    epochs: int = Field(default=300, ge=1, description="Passes over the training records.")
    batch_size: int = Field(default=64, ge=1, description="Records in a training batch.")
    optimizer: OptimizerName = Field(default="sgd", description="Optimizer.")
    learning_rate: float = Field(
        default=1e-2, gt=0, allow_inf_nan=False, description="Learning rate of the first epoch."
    )
    schedule: ScheduleName = Field(
        default="steps",
        description="Learning-rate schedule: divided by 10 after a sixth and by 100 after a third of the epochs "
        "(steps), after 50 and 100 epochs however many there are (steps-50-100), half a cosine down to zero (cosine), "
        "from a fifth up and down to 7% with every batch (triangle), or constant.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD; first beta of Adam.")
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False, description="Weight decay.")
    augment: AugmentName = Field(
        default="none",
        description="Augmentation of the training images: none; horizontal flips (flip); flips and crops, padded by an "
        "eighth of the side (crop-flip); flips in every second epoch of each image and shifts by up to a sixteenth of "
        "the side (shift-flip).",
    )
    loss: LossName = Field(
        default="cross-entropy",
        description="Loss: cross-entropy on labels or posteriors; squared error (mse) or Kullback-Leibler divergence "
        "(kl) between posteriors.",
    )
    temperature: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Temperature of both softmaxes in the kl loss."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that cross-entropy spreads over all classes."
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="Largest Euclidean norm of a batch's gradient; longer ones are scaled to it."
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="Stop when the validation loss has not fallen for this many epochs, and use the weights of the "
        "best epoch; 0 trains all epochs.",
    )
    validation_share: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of the training records that early stopping holds out to validate on. The test records "
        "are never used.",
    )
    # The following are left out of records and keys at their defaults: recipes that knew none of them keep their keys.
    bias_rate: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        exclude_if=lambda value: value == 1.0,
        description="Factor of the learning rate of batch norms' biases, by which their weight decay is divided.",
    )
    lookahead: bool = Field(
        default=False,
        exclude_if=lambda value: value is False,
        description="Pull the weights to their running average every five batches, more and more; the result is that "
        "average.",
    )
    precision: PrecisionName = Field(
        default="fp32",
        exclude_if=lambda value: value == "fp32",
        description="Arithmetic of the passes through the network: fp32, bf16, or bf16 where that is faster "
        "(auto). Weights are float32 in any case.",
    )
    seed: int = Field(
        default=0, ge=0, description="Seed of the initial weights, the order of the records, augmentation and dropout."
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> RecipeOptions:
        if self.label_smoothing and self.loss != "cross-entropy":
            raise ValueError(f"label smoothing needs the cross-entropy loss, not {self.loss}")
        if self.temperature != 1 and self.loss != "kl":
            raise ValueError(f"a temperature needs the kl loss, not {self.loss}")
        if self.bias_rate != 1 and self.optimizer not in ("sgd", "nesterov"):
            raise ValueError(f"a rate of the biases needs the optimizer sgd or nesterov, not {self.optimizer}")
        if self.optimizer == "nesterov" and self.momentum == 0:
            raise ValueError("the optimizer nesterov needs momentum")
        return self

    @property
    def changes_rate_in_epochs(self) -> bool:
        """Whether the learning rate changes with every batch."""
        return self.schedule == "triangle"

    def learning_rate_at(self, epoch: float) -> float:
        """Learning rate of an epoch, counted from 0.

        Args:
            epoch: In [0, ``epochs``); between two whole numbers for a batch within an epoch.

        Returns:
            The base rate times: 1, 0.1 or 0.01 for ``steps`` (drops at a sixth and a third of the epochs, rounded up,
            so that with three epochs or more every phase occurs) and ``steps-50-100`` (drops after so many epochs);
            (1 + cos(π · epoch / epochs)) / 2 for ``cosine``; 1 for ``constant``; for ``triangle``, linear from 0.2 to
            1 at 23% of the epochs, and from there to 0.07 at their end.
        """
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        if self.schedule == "triangle":
            (start, peak, end), done = TRIANGLE, epoch / self.epochs
            rise, fall = done / peak, (done - peak) / (1 - peak)
            return self.learning_rate * (start + (1 - start) * rise if done < peak else 1 - (1 - end) * fall)
        first = math.ceil(self.epochs / 6)
        second = max(first + 1, math.ceil(self.epochs / 3))
        if self.schedule == "steps-50-100":
            first, second = STEPS
        # Divide: 0.01 * 0.1 differs from the float 1e-3 in the last bit.
        drops = int(epoch >= first) + int(epoch >= second)
        return self.learning_rate / float(10**drops)


class Recipe(RecipeOptions):
    """How a network is trained; see `RecipeOptions` for the settings.

    Attributes:
        version: Version of the trainer: recipes that are equal, version included, give the same weights.
    """

    version: Literal[1] = 1


def change_recipe(recipe: Recipe, changes: Mapping[str, Any], *, purpose: str = "") -> Recipe:
    """Replace fields of a recipe.

    Args:
        recipe: The recipe; it stays unchanged.
        changes: New values by the names of the fields.
        purpose: What the recipe is for, for the message, such as ``shadow models``.

    Raises:
        ConfigurationError: If a field does not exist, or a value is invalid.
    """
    try:
        return Recipe(**{**recipe.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigurationError(
            f"Invalid recipe{f' for {purpose}' if purpose else ''}: {describe_problems(error, 'recipe')}.",
            hint=f"Its fields: {', '.join(Recipe.model_fields)}.",
        ) from error
