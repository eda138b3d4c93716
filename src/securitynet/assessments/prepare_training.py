"""What a configuration of a training names, defense and backdoor, made ready before long work."""

from __future__ import annotations

from securitynet.backdoors.base import Backdoor, prepare_backdoor
from securitynet.defenses.base import defended_training
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.training_defense import TrainingDefense


def prepared_training(config: TrainConfig) -> tuple[TrainConfig, TrainingDefense | None, Backdoor | None]:
    """The configuration with full names, and the defense and the backdoor that it asks for.

    Raises:
        UnknownName: If one of them does not exist.
        ConfigurationError: If a setting is wrong, or is of neither of them.
    """
    rest, backdoor = prepare_backdoor(config)
    named, defense = defended_training(rest)
    # The settings stay whole: the name of the weights file is made of them.
    return named.model_copy(update={"configure": config.configure}), defense, backdoor
