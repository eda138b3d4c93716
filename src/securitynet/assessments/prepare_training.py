"""What a configuration of a training names, defense and implant, made ready before long work."""

from __future__ import annotations

from securitynet.backdoors.base import Implant, implanted_training
from securitynet.defenses.base import TrainingDefense, defended_training
from securitynet.models.training.config import TrainConfig


def prepared_training(config: TrainConfig) -> tuple[TrainConfig, TrainingDefense | None, Implant | None]:
    """The configuration with full names, and the defense and the implant that it asks for.

    Raises:
        UnknownName: If one of them does not exist.
        ConfigurationError: If a setting is wrong, or is of neither of them.
    """
    rest, implant = implanted_training(config)
    named, protection = defended_training(rest)
    # The settings stay whole: the name of the weights file is made of them.
    return named.model_copy(update={"configure": config.configure}), protection, implant
