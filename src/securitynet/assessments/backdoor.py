"""The backdoor that a target was trained with according to its model record; detectors are evaluated on its trigger."""

from __future__ import annotations

from pydantic import ValidationError

from securitynet.backdoors import BACKDOORS
from securitynet.errors import ConfigurationError
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.poisoned_dataset import TrainingBackdoor


def make_backdoor_of(trained: TargetRecord | None) -> TrainingBackdoor | None:
    """Create the backdoor that a model was trained with from its model record; None if there is none or it is unknown.

    Raises:
        UnknownName: If the record names a backdoor that is not installed.
        ConfigurationError: If its settings do not belong to that backdoor.
    """
    record = None if trained is None else trained.backdoor
    if record is None:
        return None
    try:
        made: TrainingBackdoor = BACKDOORS.get(record.name).model_validate(record.settings)
    except ValidationError as error:
        raise ConfigurationError(f"The model record has settings that the backdoor {record.name} lacks.") from error
    return made
