"""Training with strong weight decay, which limits the large weights that memorisation needs."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import override

from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import TrainingDefense


class WeightDecay(TrainingDefense):
    """Weight decay, by default ten times that of the default recipe."""

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 5e-3}, {"strength": 5e-2})

    strength: float = Field(default=5e-3, gt=0, allow_inf_nan=False, description="Weight decay of the optimizer.")

    @override
    def change_recipe(self, recipe: Recipe) -> Recipe:
        return recipe.model_copy(update={"weight_decay": self.strength})
