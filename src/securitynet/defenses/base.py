"""Base classes of defenses: training defenses change a training, output defenses hide a part of the outputs.

Each defense is a class in its own file in this package; the registry finds it by the name of the file. The fields of
the class are its configuration.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from securitynet.defenses import DEFENSES
from securitynet.defenses._repair import RepairDefense
from securitynet.errors import ConfigurationError, describe_problems
from securitynet.files import parse_value
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import Interface
from securitynet.models.targets.target import Target
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.recipe import RecipeOptions
from securitynet.models.training.training_defense import Defense, TrainingDefense

__all__ = [
    "Defense",
    "OutputDefense",
    "RepairDefense",
    "TrainingDefense",
    "make_defense",
    "make_output_defense",
    "make_repair",
    "make_training_defense",
    "parse_defense_settings",
    "resolve_defense",
]

_REPAIR = "Remove a backdoor with it: securitynet repair MODEL --dataset D --defense {}"


class OutputDefense(Defense):
    """A defense that hides or changes a part of the outputs. The target is not retrained."""

    stage: ClassVar[Literal["training", "output", "repair"]] = "output"

    @abstractmethod
    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        """Build the interface through which the target is queried.

        Args:
            target: The target to defend. As its owner, the defense may query it for members and non-members.
            data: The owner's records. A defense that needs a sample of non-members must not use those that it is
                evaluated on.
            context: Seed and cache.
        """


def make_defense(name: str, settings: dict[str, Any] | None = None) -> Defense:
    """Create a defense from its name and settings.

    Args:
        name: Full name in the registry.
        settings: Values by field; the others keep their defaults.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If a setting does not exist or has an invalid value; the message names all of them.
    """
    cls = DEFENSES.get(name)
    try:
        made: Defense = cls.model_validate(settings or {})
    except ValidationError as error:
        problems, fields = describe_problems(error), ", ".join(cls.model_fields) or "none"
        raise ConfigurationError(f"Settings of {name}: {problems}.", hint=f"Its fields: {fields}.") from error
    return made


def make_repair(name: str, settings: dict[str, Any]) -> RepairDefense:
    """Create a defense that repairs trained models from its name and settings.

    Args:
        name: Name or alias in the registry.
        settings: Values by field; the others keep their defaults.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is another kind of defense, or a setting is wrong.
    """
    made = make_defense(DEFENSES.resolve(name).name, settings)
    if not isinstance(made, RepairDefense):
        names = ", ".join(full for full in DEFENSES if DEFENSES.get(full).stage == "repair")
        raise ConfigurationError(f"{name} does not repair trained models.", hint=f"These do: {names}.")
    return made


def parse_defense_settings(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Parse the settings of one defense from ``NAME.FIELD=VALUE`` texts.

    Args:
        name: Name of the defense.
        texts: Settings; values are written as in TOML, or as plain words.

    Raises:
        ConfigurationError: If one cannot be parsed, or belongs to something else.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        owner, dot, field = path.strip().rpartition(".")
        if not (equals and dot and field):
            raise ConfigurationError(
                f"--configure {text!r} cannot be parsed.", hint=f"Write NAME.FIELD=VALUE, such as {name}.FIELD=VALUE."
            )
        if owner != name:
            raise ConfigurationError(
                f"--configure sets {owner}, which is not in use.", hint=f"The defense in use is {name}."
            )
        settings[field] = parse_value(value.strip())
    return settings


def make_training_defense(name: str, texts: Sequence[str] = ()) -> TrainingDefense:
    """Create a training defense from its name and its settings as texts.

    Args:
        name: Name or alias in the registry.
        texts: See `parse_defense_settings`.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is an output defense, or a setting is wrong.
    """
    name = DEFENSES.resolve(name).name
    made = make_defense(name, parse_defense_settings(name, texts))
    if made.stage == "repair":
        raise ConfigurationError(f"{name} changes a model that is trained already.", hint=_REPAIR.format(name))
    if not isinstance(made, TrainingDefense):
        raise ConfigurationError(
            f"{name} changes the outputs of a model, not how it is trained.",
            hint=f"Try it on a trained model: securitynet assess ... --defense {name}.",
        )
    return made


def resolve_defense(config: TrainConfig) -> tuple[TrainConfig, TrainingDefense | None]:
    """Create the defense that a training configuration names, and complete the configuration.

    Fields of the recipe that the configuration does not state are set as the defense advises.

    Returns:
        The configuration with the full name of the defense, and the defense; None if there is none.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is not a training defense, a setting is wrong, or there are settings but no defense.
    """
    if config.defense is None:
        if config.configure:
            raise ConfigurationError(
                f"--configure {config.configure[0]!r} configures a defense, but none is given.",
                hint="Add --defense NAME.",
            )
        return config, None
    made = make_training_defense(config.defense, config.configure)
    stated = {name: getattr(config, name) for name in RecipeOptions.model_fields if name in config.model_fields_set}
    return config.model_copy(update={**made.advised(stated), "defense": made.name}), made


def make_output_defense(name: str, settings: dict[str, Any]) -> OutputDefense:
    """Create an output defense from its name and settings.

    Args:
        name: Name or alias in the registry.
        settings: Values by field; the others keep their defaults.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is a training defense, or a setting is wrong.
    """
    made = make_defense(DEFENSES.resolve(name).name, settings)
    if made.stage == "repair":
        raise ConfigurationError(f"{name} changes the weights of a model, not its outputs.", hint=_REPAIR.format(name))
    if not isinstance(made, OutputDefense):
        raise ConfigurationError(
            f"{name} changes how a model is trained, but this model is trained already.",
            hint=f"Train a model with it: securitynet train ... --defense {name}.",
        )
    return made
