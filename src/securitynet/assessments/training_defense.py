"""The defense that a target was trained with according to its model record; shadow models are trained with it too."""

from __future__ import annotations

import logging

from securitynet.defenses.base import make_defense
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.training_defense import TrainingDefense

logger = logging.getLogger(__name__)


def recreate_defense(trained: TargetRecord | None) -> TrainingDefense | None:
    """Create the defense that a model was trained with from its model record; None if there is none.

    The result is also None, with a warning, if the defense is not installed or this version does not know its settings:
    attacks that train shadow models then report that they cannot run, and the others are not affected.
    """
    record = None if trained is None else trained.defense
    if record is None:
        return None
    try:
        made = make_defense(record.name, record.settings)
    except (UnknownName, ConfigurationError) as error:
        logger.warning("Shadow models cannot be trained with the defense of the target: %s", error.message)
        return None
    return made if isinstance(made, TrainingDefense) else None
