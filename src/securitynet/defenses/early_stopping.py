"""Training that stops when the loss on held-out training records rises; the best epoch's weights are used."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import override

from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import TrainingDefense


class EarlyStopping(TrainingDefense):
    """Early stopping. The validation records are not trained on and are not members."""

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"patience": 5},)

    patience: int = Field(default=5, ge=1, description="Epochs to wait for a lower validation loss.")
    validation_share: float = Field(default=0.1, gt=0, lt=1, description="Share of the training records held out.")

    @override
    def change_recipe(self, recipe: Recipe) -> Recipe:
        changes = {"patience": self.patience, "validation_share": self.validation_share}
        return recipe.model_copy(update=changes)
