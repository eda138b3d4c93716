"""What defenses are: changes to a training, and interfaces that hide a part of the outputs.

A defense is a class in a file of its own in this package; the registry finds it by the file's name. Its fields are its
configuration.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from securitynet.defenses import DEFENSES
from securitynet.errors import ConfigurationError
from securitynet.files import parse_toml
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
    "TrainingDefense",
    "defended_training",
    "make_defense",
    "output_defense",
    "settings_of",
    "training_defense",
]


class OutputDefense(Defense):
    """A defense that hides a part of what a target answers. It needs no training of the target."""

    stage: ClassVar[Literal["training", "output"]] = "output"

    @abstractmethod
    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        """What stands between the target and those who ask it.

        Args:
            target: To be defended; it may be asked about members and non-members, by its owner.
            data: The records; what the defense may learn from is the owner's, never the records that it is judged on
                where a sample of non-members is needed.
            context: Seed and cache.
        """


def make_defense(name: str, settings: dict[str, Any] | None = None) -> OutputDefense | TrainingDefense:
    """A defense by its name, configured.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If a setting does not exist or has a value that is not allowed; all are named.
    """
    cls = DEFENSES.get(name)
    try:
        made: OutputDefense | TrainingDefense = cls.model_validate(settings or {})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or name}: {problem['msg'].removeprefix('Value error, ').lower()}"
            for problem in error.errors()
        )
        fields = ", ".join(cls.model_fields) or "none"
        raise ConfigurationError(f"Settings of {name}: {problems}.", hint=f"Its fields: {fields}.") from error
    return made


def settings_of(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """The settings of one defense among ``NAME.FIELD=VALUE`` texts; values as TOML writes them, or plain words.

    Raises:
        ConfigurationError: If one is not understood, or is of something else.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        owner, dot, field = path.strip().rpartition(".")
        if not (equals and dot and field):
            raise ConfigurationError(
                f"--configure {text!r} is not understood.", hint=f"Write NAME.FIELD=VALUE, such as {name}.FIELD=VALUE."
            )
        if owner != name:
            raise ConfigurationError(
                f"--configure sets {owner}, which is not asked for.", hint=f"The defense asked for is {name}."
            )
        settings[field] = _value(value.strip())
    return settings


def training_defense(name: str, texts: Sequence[str] = ()) -> TrainingDefense:
    """A defense to train with, by its name and its settings as texts.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is one of what a model answers, or a setting is wrong.
    """
    name = DEFENSES.resolve(name).name
    made = make_defense(name, settings_of(name, texts))
    if not isinstance(made, TrainingDefense):
        raise ConfigurationError(
            f"{name} changes what a model answers, not how it is trained.",
            hint=f"Try it on a trained model: securitynet assess ... --defense {name}.",
        )
    return made


def defended_training(config: TrainConfig) -> tuple[TrainConfig, TrainingDefense | None]:
    """The defense that a configuration of a training names, and the configuration with its full name.

    What the configuration does not state of the recipe is as the defense advises.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is no defense to train with, a setting is wrong, or there are settings without it.
    """
    if config.defense is None:
        if config.configure:
            raise ConfigurationError(
                f"--configure {config.configure[0]!r} sets a defense, and none is asked for.",
                hint="Add --defense NAME.",
            )
        return config, None
    made = training_defense(config.defense, config.configure)
    stated = {name: getattr(config, name) for name in RecipeOptions.model_fields if name in config.model_fields_set}
    return config.model_copy(update={**made.advised(stated), "defense": made.name}), made


def output_defense(name: str, settings: dict[str, Any]) -> OutputDefense:
    """A defense of what a model answers, by its name and its settings.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is one to train with, or a setting is wrong.
    """
    made = make_defense(DEFENSES.resolve(name).name, settings)
    if not isinstance(made, OutputDefense):
        raise ConfigurationError(
            f"{name} changes how a model is trained, and this one is trained already.",
            hint=f"Train a model with it: securitynet train ... --defense {name}.",
        )
    return made


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ConfigurationError:
        return text  # a plain word
