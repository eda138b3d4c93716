"""The backdoor that a target was trained with according to its model record; detectors are evaluated on its trigger."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from securitynet.backdoors import BACKDOORS
from securitynet.errors import ConfigurationError
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.poisoned_dataset import TrainingBackdoor

logger = logging.getLogger(__name__)


def make_backdoor_of(trained: TargetRecord | None) -> TrainingBackdoor | None:
    """Create the backdoor that a model was trained with from its model record; None if there is none or it is unknown.

    Also None if it did not take (`BackdoorRecord.took`): a trigger that does nothing says nothing about detectors.

    Raises:
        UnknownName: If the record names a backdoor that is not installed.
        ConfigurationError: If its settings do not belong to that backdoor.
    """
    record = None if trained is None else trained.backdoor
    if record is None:
        return None
    if record.took is False:
        logger.warning(
            "The backdoor %s did not take (success %.0f%%), so detectors are not judged by its trigger.",
            record.name,
            100 * (record.success or 0.0),
        )
        return None
    try:
        made: TrainingBackdoor = BACKDOORS.get(record.name).model_validate(record.settings)
    except ValidationError as error:
        raise ConfigurationError(f"The model record has settings that the backdoor {record.name} lacks.") from error
    return made
