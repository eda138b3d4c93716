"""Puts a target behind an output defense, for assessments and studies."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.assessments.config import AssessConfig
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.defenses import DEFENSES
from securitynet.defenses.base import make_output_defense, parse_defense_settings
from securitynet.errors import ConfigurationError
from securitynet.files import find_cache_folder
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.records import Access


def list_method_settings(config: AssessConfig) -> tuple[str, ...]:
    """Return the settings of attacks and detectors, without those of defenses.

    Raises:
        ConfigurationError: If there are settings of a defense that is not requested.
    """
    requested = None if config.defense is None else DEFENSES.resolve(config.defense).name
    for name, _ in _of_defenses(config.configure):
        if name != requested:
            raise ConfigurationError(f"--configure sets {name}, which is not requested.", hint=f"Add --defense {name}.")
    own = {text for _, text in _of_defenses(config.configure)}
    return tuple(text for text in config.configure if text not in own)


def check_output_defense(config: AssessConfig) -> None:
    """Check everything about a defense that can be checked before anything is loaded.

    Raises:
        UnknownName: If it does not exist.
        ConfigurationError: If it is a training defense, a setting is wrong, or it cannot affect the adversary.
    """
    list_method_settings(config)
    if config.defense is None:
        return
    name = DEFENSES.resolve(config.defense).name
    make_output_defense(name, parse_defense_settings(name, [text for _, text in _of_defenses(config.configure)]))
    if config.access is Access.WHITE_BOX:
        raise ConfigurationError(
            f"{name} changes the outputs of a model, but an adversary with white-box access has the model itself.",
            hint="Leave --access out, or train with a defense.",
        )


def defend(config: AssessConfig, target: Target, dataset: ImageDataset, splits: Splits) -> Target:
    """Return the target behind the output defense of the configuration; the target itself if there is none.

    Args:
        config: The configuration.
        target: The target.
        dataset: Its dataset.
        splits: Its splits.

    Raises:
        SecurityNetError: As for `check_output_defense`; and if the defense cannot be fitted to these records.
    """
    if config.defense is None:
        return target
    check_output_defense(config)
    name = DEFENSES.resolve(config.defense).name
    defense = make_output_defense(
        name, parse_defense_settings(name, [text for _, text in _of_defenses(config.configure)])
    )
    context = Context(seed=config.seed, cache=config.cache or find_cache_folder(), device=config.device)
    return target.through(defense.interface(target, TrialData(dataset, splits), context))


def _of_defenses(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return (defense, text) of the settings that belong to a defense."""
    settings = []
    for text in texts:
        owner = text.partition("=")[0].strip().rpartition(".")[0]
        if owner in DEFENSES:
            settings.append((owner, text))
    return settings
