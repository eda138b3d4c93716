"""Training on labels that give every class some probability (Szegedy et al., 2016)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import override

from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import TrainingDefense


class LabelSmoothing(TrainingDefense):
    """Cross-entropy with smoothed labels."""

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"share": 0.1}, {"share": 0.3})

    share: float = Field(default=0.1, gt=0, lt=1, description="Share of probability spread over all classes.")

    @override
    def change_recipe(self, recipe: Recipe) -> Recipe:
        return Recipe(**{**recipe.model_dump(), "label_smoothing": self.share})
