"""`Recipe`: how a network is trained. The default is ML-Doctor's; importing this loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from securitynet.errors import ConfigurationError, list_problems
from securitynet.records import Record

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["steps", "steps-50-100", "cosine", "constant"]

STEPS = (50, 100)
"""Epochs at which the learning rate of ML-Doctor's targets drops (section 5.3), for ``steps-50-100``."""
AugmentName = Literal["none", "flip", "crop-flip"]
LossName = Literal["cross-entropy", "mse", "kl"]


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
        "or constant.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD; first beta of Adam.")
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False, description="Weight decay.")
    augment: AugmentName = Field(
        default="none",
        description="Augmentation of the training images: none, horizontal flips, or flips and crops (padded by an "
        "eighth of the side).",
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
    seed: int = Field(
        default=0, ge=0, description="Seed of the initial weights, the order of the records, augmentation and dropout."
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> RecipeOptions:
        if self.label_smoothing and self.loss != "cross-entropy":
            raise ValueError(f"label smoothing needs the cross-entropy loss, not {self.loss}")
        if self.temperature != 1 and self.loss != "kl":
            raise ValueError(f"a temperature needs the kl loss, not {self.loss}")
        return self

    def learning_rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0.

        Args:
            epoch: In [0, ``epochs``).

        Returns:
            The base rate times: 1, 0.1 or 0.01 for ``steps`` (drops at a sixth and a third of the epochs, rounded up,
            so that with three epochs or more every phase occurs) and ``steps-50-100`` (drops after so many epochs);
            (1 + cos(π · epoch / epochs)) / 2 for ``cosine``; 1 for ``constant``.
        """
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
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
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'recipe'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in list_problems(error)
        )
        raise ConfigurationError(
            f"Invalid recipe{f' for {purpose}' if purpose else ''}: {problems}.",
            hint=f"Its fields: {', '.join(Recipe.model_fields)}.",
        ) from error
