"""Named recipes keep their values: study files and trials name them."""

from __future__ import annotations

import pytest

from securitynet.errors import UnknownName
from securitynet.models.training.presets import RECIPES, make_recipe
from securitynet.models.training.recipe import Recipe

FAST = {
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
}
PINNED = {
    ("ml-doctor", "resnet18"): {},
    ("fast", "resnet18"): FAST,
    ("fast", "timm:airbench"): FAST,  # another library's network of that name
    ("fast", "airbench-small"): {
        **FAST,
        "batch_size": 1024,
        "learning_rate": 1.5,
        "weight_decay": 1.33e-3,
        "bias_rate": 64.0,
    },
}


@pytest.mark.parametrize(("name", "architecture"), PINNED)
def test_values_stay(name: str, architecture: str) -> None:
    assert make_recipe(name, architecture) == Recipe(**PINNED[name, architecture])
    assert {pinned for pinned, _ in PINNED} == set(RECIPES)


def test_the_defaults_are_the_papers() -> None:
    default = Recipe()
    found = (default.epochs, default.batch_size, default.optimizer, default.learning_rate, default.schedule)
    assert found == (300, 64, "sgd", 0.01, "steps")
    assert (default.momentum, default.weight_decay, default.augment) == (0.9, 5e-4, "none")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="ml-doctor"):
        make_recipe("quick", "resnet18")
