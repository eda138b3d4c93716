"""Resolves the defense and the backdoor that a training configuration names, before long work."""

from __future__ import annotations

from securitynet.backdoors.base import Backdoor, prepare_backdoor
from securitynet.defenses.base import resolve_defense
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.training_defense import TrainingDefense


def prepare_training(config: TrainConfig) -> tuple[TrainConfig, TrainingDefense | None, Backdoor | None]:
    """Return the configuration with full names, and the defense and the backdoor that it names.

    Raises:
        UnknownName: If one of them does not exist.
        ConfigurationError: If a setting is wrong, or belongs to neither of them.
    """
    rest, backdoor = prepare_backdoor(config)
    named, defense = resolve_defense(rest)
    # All settings are kept, because the name of the weights file is derived from them.
    return named.model_copy(update={"configure": config.configure}), defense, backdoor
