"""Stealing with images that the thief has: which of them to ask about is what such attacks differ in."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from securitynet.attacks.stealing._pool import pool_of, with_copies
from securitynet.attacks.stealing.base import POOLS, Answered, StealingAttack, ask_about, surrogate_recipe
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import ThreatModel


class PlainStealing(StealingAttack):
    """Ask about auxiliary images in random order.

    A recipe with augmentation shows changed images to the surrogate. By default the answer for the original stands for
    them, at no cost. With ``copies``, fixed changed copies are asked about themselves, each a query of the budget, and
    the surrogate sees originals and copies as they were asked.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = POOLS

    copies: int = Field(
        default=0,
        ge=0,
        description="Changed copies of each image to ask about too, each a query of its own; recipe.augment says how "
        "they are changed. With 0, the answer for the original stands for its changed copies.",
    )

    @model_validator(mode="after")
    def _copies_are_changed(self) -> PlainStealing:
        if self.copies and surrogate_recipe(self.protocol, self.recipe).augment == "none":
            raise ConfigurationError(
                "Copies without augmentation would be the images themselves.", hint="Set recipe.augment=flip."
            )
        return self

    def training(self, seen: Target, context: Context) -> Recipe:
        """See `StealingAttack.training`: copies that were asked about are not changed again."""
        recipe = super().training(seen, context)
        return recipe.model_copy(update={"augment": "none"}) if self.copies else recipe

    def ask(self, target: Target, data: TrialData, context: Context) -> Answered:
        """See `StealingAttack.ask`."""
        most = max(self.budgets, default=None)
        recipe = surrogate_recipe(self.protocol, self.recipe)
        if not self.copies:
            pool = pool_of(data, context, most, missing_classes=self.missing_classes)
        else:
            plain = pool_of(data, context, None, missing_classes=self.missing_classes)
            pool = with_copies(plain, self.copies, recipe.augment, most, context.seed)
            if most is not None and most > len(pool.records):
                raise ConfigurationError(
                    f"A budget of {most:,} queries is more than the {len(pool.records):,} distinct images and copies.",
                    hint="Lower the budget.",
                )
        answers, classes = ask_about(target, pool, pool.records, context)
        return Answered(pool.dataset, pool.records, answers, classes)
