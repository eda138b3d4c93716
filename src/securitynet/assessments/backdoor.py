"""The backdoor that was planted in a target, where its record says so: detectors are judged on its trigger."""

from __future__ import annotations

from pydantic import ValidationError

from securitynet.backdoors import BACKDOORS
from securitynet.errors import ConfigurationError
from securitynet.models.store.model_record import TrainedModel
from securitynet.models.training.poisoned_dataset import Poisoner


def planted(trained: TrainedModel | None) -> Poisoner | None:
    """What poisoned the training set of a model, made from its record; None if nothing did, or nothing is known.

    Raises:
        UnknownName: If the record names an implant that is not installed.
        ConfigurationError: If its settings are not that implant's.
    """
    record = None if trained is None else trained.implant
    if record is None:
        return None
    try:
        made: Poisoner = BACKDOORS.get(record.name).model_validate(record.settings)
    except ValidationError as error:
        raise ConfigurationError(
            f"The record of the planted backdoor has settings that {record.name} lacks."
        ) from error
    return made
