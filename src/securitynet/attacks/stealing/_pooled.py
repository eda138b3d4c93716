"""Stealing with images that the adversary already holds, which are queried in random order."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator
from typing_extensions import override

from securitynet.attacks.stealing._pool import add_copies, make_pool
from securitynet.attacks.stealing.base import POOLS, QueryResult, StealingAttack, adapt_recipe, query_records
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import ThreatModel


class PlainStealing(StealingAttack):
    """Query the target with auxiliary images in random order.

    With augmentation, the surrogate is trained on altered images. By default, the target's output for the original is
    used for its altered versions as well, at no cost. With ``copies``, the target is queried with a fixed number of
    altered copies; each copy counts against the budget, and the surrogate is trained on exactly the images queried.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = POOLS

    copies: int = Field(
        default=0,
        ge=0,
        description="Altered copies of each image to query as well, each counted as a query; recipe.augment says how "
        "they are altered. With 0, the output for the original is used for its altered copies.",
    )

    @model_validator(mode="after")
    def _copies_are_changed(self) -> PlainStealing:
        if self.copies and adapt_recipe(self.protocol, self.recipe).augment == "none":
            raise ConfigurationError(
                "Copies without augmentation would be the images themselves.", hint="Set recipe.augment=flip."
            )
        return self

    def training(self, seen: Target, context: Context) -> Recipe:
        """Return the recipe of the surrogates, without augmentation if the copies were altered before the queries."""
        recipe = super().training(seen, context)
        return recipe.model_copy(update={"augment": "none"}) if self.copies else recipe

    @override
    def query_images(self, target: Target, data: TrialData, context: Context) -> QueryResult:
        most = max(self.budgets, default=None)
        recipe = adapt_recipe(self.protocol, self.recipe)
        if not self.copies:
            pool = make_pool(data, context, most, missing_classes=self.missing_classes)
        else:
            plain = make_pool(data, context, None, missing_classes=self.missing_classes)
            pool = add_copies(plain, self.copies, recipe.augment, most, context.seed)
            if most is not None and most > len(pool.records):
                raise ConfigurationError(
                    f"A budget of {most:,} queries is more than the {len(pool.records):,} distinct images and copies.",
                    hint="Lower the budget.",
                )
        outputs, classes = query_records(target, pool, pool.records, context)
        return QueryResult(pool.dataset, pool.records, outputs, classes)
