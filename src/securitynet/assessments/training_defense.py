"""The defense that a target was trained with, where its record says so: models that imitate it are trained likewise."""

from __future__ import annotations

import logging

from securitynet.defenses.base import make_defense
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.training_defense import TrainingDefense

logger = logging.getLogger(__name__)


def defense_of(trained: TargetRecord | None) -> TrainingDefense | None:
    """The defense a model was trained with, made from its record; None if there is none.

    One that is not installed, or whose settings this version does not know, is None too, with a warning: attacks that
    train shadow models then say that they cannot, and the others go on.
    """
    record = None if trained is None else trained.defense
    if record is None:
        return None
    try:
        made = make_defense(record.name, record.settings)
    except (UnknownName, ConfigurationError) as error:
        logger.warning("The defense of the target can't be imitated: %s", error.message)
        return None
    return made if isinstance(made, TrainingDefense) else None
