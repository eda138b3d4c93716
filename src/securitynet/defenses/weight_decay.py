"""Training with strong weight decay: large weights, with which a network learns records by heart, are held down."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import TrainingDefense


class WeightDecay(TrainingDefense):
    """Weight decay, ten times that of the default recipe or more."""

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 5e-3}, {"strength": 5e-2})

    strength: float = Field(default=5e-3, gt=0, allow_inf_nan=False, description="Weight decay of the optimizer.")

    def change_recipe(self, recipe: Recipe) -> Recipe:
        """See `TrainingDefense.change_recipe`."""
        return recipe.model_copy(update={"weight_decay": self.strength})
