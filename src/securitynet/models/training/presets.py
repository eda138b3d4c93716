"""Recipes by name: what `securitynet train --recipe NAME` sets. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from securitynet.errors import UnknownName
from securitynet.models.training.recipe import Recipe, change_recipe

RecipeName = Literal["ml-doctor", "fast"]

RECIPES: dict[str, dict[str, Any]] = {
    "ml-doctor": {},
    "fast": {
        "epochs": 16,
        "batch_size": 128,
        "optimizer": "nesterov",
        "learning_rate": 0.05,
        "schedule": "triangle",
        "momentum": 0.85,
        "augment": "shift-flip",
        "label_smoothing": 0.2,
        "lookahead": True,
        "precision": "auto",
    },
}
"""Fields that differ from `Recipe`'s defaults, which are ML-Doctor's. From the first release that has a recipe on, its
values stay: another recipe gets another name, because study files and trials name theirs. A test pins them.

``fast`` is that of Jordan (2024, arXiv 2404.00498), with more epochs and usual batches and rates: in batches of 1,024,
networks that were not made for it get too few steps.
"""

_AIRBENCH = {"batch_size": 1024, "learning_rate": 1.5, "weight_decay": 1.33e-3, "bias_rate": 64.0}
"""The paper's batches and rates, for its network, whose small logits need large rates. They are for the mean loss of a
batch where the paper sums: its 11.5 per 1,024 records is divided by 1 + 1 / (1 - momentum) there."""


def get_recipe_fields(name: str, architecture: str) -> dict[str, Any]:
    """Fields of a recipe that differ from the defaults.

    Args:
        name: ``ml-doctor`` or ``fast``.
        architecture: Name of the architecture to train, or a reference.

    Raises:
        UnknownName: If there is no such recipe.
    """
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    own = architecture.removeprefix("arch:").startswith("airbench")
    return {**RECIPES[name], **(_AIRBENCH if own and name == "fast" else {})}


def make_recipe(name: str, architecture: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by its name.

    Args:
        name: ``ml-doctor`` or ``fast``.
        architecture: Name of the architecture to train, or a reference.
        changes: Fields to change.

    Raises:
        UnknownName: If there is no such recipe.
        ConfigurationError: If a field does not exist, or a value is invalid.
    """
    return change_recipe(Recipe(), {**get_recipe_fields(name, architecture), **(changes or {})})
