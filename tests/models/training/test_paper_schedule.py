"""ML-Doctor's learning rate (section 5.3): 1e-2 up to epoch 50, 1e-3 up to 100, 1e-4 after, at any length."""

import pytest

from securitynet.files import read_toml
from securitynet.models.training.recipe import Recipe


@pytest.mark.parametrize("epochs", [10, 50, 100, 150, 300])
def test_steps_do_not_depend_on_the_length(epochs: int) -> None:
    recipe = Recipe(epochs=epochs, schedule="steps-50-100")
    expected = [1e-2 if epoch < 50 else 1e-3 if epoch < 100 else 1e-4 for epoch in range(epochs)]
    assert [recipe.learning_rate_at(epoch) for epoch in range(epochs)] == expected


def test_the_papers_length_is_the_same_with_both() -> None:
    scaled, fixed = Recipe(), Recipe(schedule="steps-50-100")
    assert [scaled.learning_rate_at(e) for e in range(300)] == [fixed.learning_rate_at(e) for e in range(300)]


def test_the_ready_study_of_epochs_uses_them(request: pytest.FixtureRequest) -> None:
    study = read_toml(request.config.rootpath / "studies" / "ml-doctor-epochs.toml")
    assert all(table["schedule"] == "steps-50-100" and len(table["epochs"]) > 1 for table in study["train"])
