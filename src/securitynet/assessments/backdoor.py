"""The backdoor that a target was trained with, where its record says so: detectors are judged on its trigger."""

from __future__ import annotations

from pydantic import ValidationError

from securitynet.backdoors import BACKDOORS
from securitynet.errors import ConfigurationError
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.poisoned_dataset import TrainingBackdoor


def make_backdoor_of(trained: TargetRecord | None) -> TrainingBackdoor | None:
    """What poisoned the training set of a model, made from its record; None if nothing did, or nothing is known.

    Raises:
        UnknownName: If the record names a backdoor that is not installed.
        ConfigurationError: If its settings are not that backdoor's.
    """
    record = None if trained is None else trained.backdoor
    if record is None:
        return None
    try:
        made: TrainingBackdoor = BACKDOORS.get(record.name).model_validate(record.settings)
    except ValidationError as error:
        raise ConfigurationError(f"The record of the backdoor has settings that {record.name} lacks.") from error
    return made
