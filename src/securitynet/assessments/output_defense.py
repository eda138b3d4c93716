"""A target behind a defense of what it answers, for assessments and studies."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.assessments.config import AssessConfig
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.defenses import DEFENSES
from securitynet.defenses.base import output_defense, settings_of
from securitynet.errors import ConfigurationError
from securitynet.files import cache_folder
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.records import Access


def list_method_settings(config: AssessConfig) -> tuple[str, ...]:
    """The settings of attacks and detectors: those that are not of a defense.

    Raises:
        ConfigurationError: If there are settings of a defense that is not asked for.
    """
    asked = None if config.defense is None else DEFENSES.resolve(config.defense).name
    for name, _ in _of_defenses(config.configure):
        if name != asked:
            raise ConfigurationError(f"--configure sets {name}, which is not asked for.", hint=f"Add --defense {name}.")
    own = {text for _, text in _of_defenses(config.configure)}
    return tuple(text for text in config.configure if text not in own)


def check_defense(config: AssessConfig) -> None:
    """Check what can be checked of a defense before anything is loaded.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is one to train with, a setting is wrong, or it would not hold up the adversary.
    """
    list_method_settings(config)
    if config.defense is None:
        return
    name = DEFENSES.resolve(config.defense).name
    output_defense(name, settings_of(name, [text for _, text in _of_defenses(config.configure)]))
    if config.access is Access.WHITE_BOX:
        raise ConfigurationError(
            f"{name} changes what a model answers, and an adversary with white-box access has the model itself.",
            hint="Leave --access out, or train with a defense.",
        )


def defend(config: AssessConfig, target: Target, dataset: ImageDataset, splits: Splits) -> Target:
    """The target as the configuration's defense shows it; the target itself if none is asked for.

    Raises:
        SecurityNetError: See `check_defense`; and if the defense can't learn what it needs from these records.
    """
    if config.defense is None:
        return target
    check_defense(config)
    name = DEFENSES.resolve(config.defense).name
    defense = output_defense(name, settings_of(name, [text for _, text in _of_defenses(config.configure)]))
    context = Context(seed=config.seed, cache=config.cache or cache_folder(), device=config.device)
    return target.through(defense.interface(target, TrialData(dataset, splits), context))


def _of_defenses(texts: Sequence[str]) -> list[tuple[str, str]]:
    """(defense, text) of the settings that are of a defense."""
    settings = []
    for text in texts:
        owner = text.partition("=")[0].strip().rpartition(".")[0]
        if owner in DEFENSES:
            settings.append((owner, text))
    return settings
