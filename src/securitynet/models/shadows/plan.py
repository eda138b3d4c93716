"""The configuration of shadow models: how many, how they are trained, and their training sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from securitynet.datasets.splits import Splits
from securitynet.errors import ConfigurationError, SplitError
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.sources.references import parse_reference
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.targets.target import Target
from securitynet.models.training.presets import RECIPES, make_recipe
from securitynet.models.training.recipe import Recipe, change_recipe
from securitynet.models.training.trainable import Architecture, find_architecture
from securitynet.models.training.training_defense import TrainingDefense
from securitynet.randomness import derive_seed
from securitynet.records import Record

FALLBACK_ARCHITECTURE = "simple-cnn"
"""Architecture of shadow models where the target's is not known, and none was chosen."""

MOST_SHADOWS = 100_000
"""Shadow models of one attack; a number with too many digits would take all memory before anything is trained."""

_RANKED = 1 << 16
"""Records whose ranks are computed at once."""


class ShadowTraining(Record):
    """How shadow models are trained.

    Attributes:
        architecture: A name or a reference (`securitynet.models.training.trainable`); None for the target's own if it
            is known, else `FALLBACK_ARCHITECTURE`.
        recipe: Fields of the `Recipe` to change, such as ``{"epochs": 30}``. The others are those of the target's
            training if that is known, else ML-Doctor's. The seed follows from that of the attack. The name of a recipe
            (``fast``), alone or as ``{"recipe": "fast", "epochs": 4}``, replaces all those of the target's training.
        defense: ``imitate``: train them with the target's training defense, as an adversary would who knows of it.
            ``none``: train them without it, which may understate the risk; changes of the recipe by the defense remain.
    """

    architecture: str | None = None
    recipe: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    # Left out of the trial id at its default: trials of targets without a defense keep their ids.
    defense: Literal["imitate", "none"] = Field(default="imitate", exclude_if=lambda value: value == "imitate")

    @field_validator("recipe", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"recipe": value} if isinstance(value, str) else value

    @field_validator("recipe")
    @classmethod
    def _is_a_recipe(
        cls, value: dict[str, bool | int | float | str | None]
    ) -> dict[str, bool | int | float | str | None]:
        if "seed" in value or "version" in value:
            raise ValueError("the seed of shadow models follows from that of the attack, and versions can't be chosen")
        if (name := value.get("recipe")) is not None and name not in RECIPES:
            raise ValueError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
        unknown = sorted(set(value) - {*Recipe.model_fields, "recipe"})
        if unknown:
            raise ValueError(f"a recipe has no field {unknown[0]!r}")
        return value


class ShadowPlan(ShadowTraining):
    """Many shadow models with random training sets.

    Attributes:
        count: Number of shadow models, at least 1.
        share: Share of the pool in each training set, in (0, 1).
        pool: ``online``: members and non-members of the target, so that each judged record is in the training sets of
            ``count × share`` shadow models (the auditor's setting: it needs the judged records in advance).
            ``offline``: the shadow parts of the split, which contain none of the judged records.
            ``known``: the non-members that the adversary knows, for splits without shadow parts; they are then not
            judged.
        design: ``balanced``: each record of the pool is in equally many training sets, as in LiRA's experiments; such
            halves of one fixed pool overlap more than training sets drawn from the population do, which biases the
            vulnerability of single records upwards (Jälkö et al., 2026). ``independent``: each training set is drawn
            by itself, as large as the target's where the data allow, from the pool and, online, from all records
            besides; ``share`` then has no effect.
    """

    count: int = Field(default=16, ge=1, le=MOST_SHADOWS)
    share: float = Field(default=0.5, gt=0, lt=1)
    pool: Literal["online", "offline", "known"] = "online"
    # Left out of the trial id at its default: trials that knew no other design keep their ids.
    design: Literal["balanced", "independent"] = Field(default="balanced", exclude_if=lambda value: value == "balanced")

    def records(self, splits: Splits) -> NDArray[np.int64]:
        """The pool from which training sets are drawn, sorted.

        Raises:
            SplitError: If the pool is ``offline`` and the split has no shadow parts, or ``known`` and none are known.
        """
        if self.pool == "online":
            return np.union1d(splits.members, splits.non_members)
        if self.pool == "known":
            if len(splits.known_non_members) == 0:
                raise SplitError(
                    "The adversary knows no non-members to train shadow models on.",
                    hint="Let the adversary know a share of the records with --known.",
                )
            return np.sort(splits.known_non_members)
        pool = np.union1d(splits.shadow_train, splits.shadow_test)
        if len(pool) == 0:
            raise SplitError(
                f"The {splits.name} split has no shadow data to train shadow models on.",
                hint="Use --split four-way, an attack whose shadow models are trained on the judged records, or, for "
                'membership attacks, known non-members: pool = "known" of the shadow models.',
            )
        return pool

    def training_sets(self, size: int, seed: int) -> NDArray[np.bool_]:
        """Draw the training sets: whether each record is in that of each shadow model, ``count``×``size``.

        Each record is in exactly ``round(count × share)`` training sets, as in LiRA's experiments (Carlini et al.,
        2022): independent draws would leave some records with too few models on one side.

        Args:
            size: Number of records in the pool.
            seed: The only source of randomness.

        Raises:
            ConfigurationError: If a record would be in all or in none of them.
        """
        # NumPy guarantees the raw stream of its generators to stay the same in all versions.
        raw = np.random.PCG64(derive_seed(seed, "shadow training sets")).random_raw(self.count * size)
        keys = raw.reshape(self.count, size)
        if self.count == 1:
            return np.asarray(_rank(keys, axis=1) < round(size * self.share))
        inside = round(self.count * self.share)
        if not 0 < inside < self.count:
            raise ConfigurationError(
                f"With {self.count} shadow models and a share of {self.share:g}, each record would be in "
                f"{inside} of them; some must have it and some not.",
                hint="Train more shadow models, or move the share towards one half.",
            )
        chosen = np.empty(keys.shape, dtype=bool)
        for start in range(0, size, _RANKED):  # ranks of all records at once would take twice the memory of the keys
            chosen[:, start : start + _RANKED] = _rank(keys[:, start : start + _RANKED], axis=0) < inside
        return chosen

    def draw_training_sets(self, splits: Splits, size: int, seed: int) -> list[NDArray[np.int64]]:
        """Draw the records that each shadow model is trained on, sorted, according to the design.

        An independent training set is as large as the target's, or smaller where each record would else be left out
        of fewer than two models on average (of half a model if there is one only).

        Args:
            splits: The members of the target, and the other roles.
            size: Number of records in the dataset.
            seed: The only source of randomness.

        Raises:
            ConfigurationError: If a record would be in all or in none of the balanced training sets.
            SplitError: If the pool is empty.
        """
        pool = self.records(splits)
        if self.design == "balanced":
            return [pool[chosen] for chosen in self.training_sets(len(pool), seed)]
        population = np.arange(size, dtype=np.int64) if self.pool == "online" else pool
        wanted = self.count_independent(splits, size)
        sets = []
        for number in range(self.count):
            raw = np.random.PCG64(derive_seed(seed, "independent training set", number)).random_raw(len(population))
            sets.append(np.sort(population[raw.argsort(kind="stable")[:wanted]]))
        return sets

    def count_independent(self, splits: Splits, size: int) -> int:
        """Return the number of records in an independent training set; see `draw_training_sets`.

        Args:
            splits: The members of the target, and the other roles.
            size: Number of records in the dataset.
        """
        population = size if self.pool == "online" else len(self.records(splits))
        return min(len(splits.members), int(population * max(0.5, 1 - 2 / self.count)))


def _rank(keys: NDArray[np.uint64], axis: int) -> NDArray[np.int64]:
    """Return the rank of each key among those along an axis."""
    return np.asarray(keys.argsort(axis=axis, kind="stable").argsort(axis=axis, kind="stable"), dtype=np.int64)


@dataclass(frozen=True)
class ResolvedTraining:
    """How shadow models are trained, with everything filled in.

    Attributes:
        architecture: What they are built from; see `securitynet.models.training.trainable`.
        recipe: The recipe, still with the seed of the target; `seeded` gives each shadow model its own.
        assumptions: Sentences on how the training may differ from the target's; empty if all is known.
        defense: The target's training defense; None if it has none, or if the shadow models are trained without it.
        input_size: Height and width to which images are resized first, as for the target; None keeps their size.
    """

    architecture: str
    recipe: Recipe
    assumptions: tuple[str, ...]
    defense: TrainingDefense | None = None
    input_size: int | None = None

    def seeded(self, seed: int, number: int) -> Recipe:
        """The recipe of one shadow model."""
        return self.recipe.model_copy(update={"seed": derive_seed(seed, "shadow model", number)})


def resolve_training(
    training: ShadowTraining, target: Target, trained: TargetRecord | None, defense: TrainingDefense | None = None
) -> ResolvedTraining:
    """Complete a configuration with what is known about the target.

    Args:
        training: The configuration.
        target: The target.
        trained: Record of the target's training, if known.
        defense: The defense that ``trained`` names; see `TrialData.defense`.

    Raises:
        UnknownName: If there is no such architecture.
        ConfigurationError: If the fields make no valid recipe, or the target's defense is not available.
    """
    assumptions = []
    own = None
    if training.architecture is not None:
        chosen = find_architecture(training.architecture)
    else:
        own = find_own_architecture(target, trained)
        chosen = own or find_architecture(FALLBACK_ARCHITECTURE)
    known = trained.architecture if trained else name_architecture(target)
    if known is None:
        assumptions.append(f"they are {chosen.name}, and the target's architecture is not known")
    elif chosen.name != known:
        assumptions.append(f"they are {chosen.name}, and the target is {known}")
    elif trained is not None and trained.architecture_version not in ("", chosen.version):
        assumptions.append(f"what builds {chosen.name} has changed since the target was trained")
    changes = dict(training.recipe)
    named = changes.pop("recipe", None)
    own_recipe = trained.recipe if trained else Recipe()
    base = own_recipe if named is None else make_recipe(str(named), chosen.name)
    if trained is None:
        assumptions.append("it is not known how the target was trained")
    elif trained.defense is not None and training.defense == "none":
        assumptions.append(f"the target was trained with the defense {trained.defense.name}, and they were not")
    defense = None if training.defense == "none" else choose_shadow_defense(trained, defense)
    size = target.preprocessing.input_size if own is not None and trained is None else None
    return ResolvedTraining(
        chosen.reference,
        change_recipe(base, changes, purpose="shadow models"),
        tuple(assumptions),
        defense,
        None if size is None else max(size),
    )


def name_architecture(target: Target) -> str | None:
    """Name what a target is built from, a name or a reference, if the target itself states it."""
    if target.architecture is not None:
        return find_architecture(target.architecture).name
    scheme, _, name = target.without_interface().reference.partition(":")
    return name if scheme == "arch" and name in ARCHITECTURES else None


def find_own_architecture(target: Target, trained: TargetRecord | None) -> Architecture | None:
    """Find the architecture of models that are trained like a target; None if the target's is not known.

    Code that a model record names is never run: a factory counts only where the user named its file.

    Raises:
        ConfigurationError: If the target was built by a factory, and it is not known where that is.
        SecurityNetError: See `find_architecture`.
    """
    known = target.architecture or (trained.architecture if trained else name_architecture(target))
    if known is None:
        return None
    if target.architecture is None and parse_reference(known if ":" in known else f"arch:{known}").path is not None:
        raise ConfigurationError(
            f"The target was trained as {known}, but the location of that file is unknown.",
            hint="Load the target by that reference with its folder, or state --architecture.",
        )
    return find_architecture(known)


def choose_shadow_defense(trained: TargetRecord | None, defense: TrainingDefense | None) -> TrainingDefense | None:
    """The defense of models that are trained like a target; None if it has none.

    Raises:
        ConfigurationError: If the target's defense is not available. Models without it would differ from the target,
            and results based on them would silently understate the risk.
    """
    if trained is None or trained.defense is None:
        return None
    if defense is None or defense.name != trained.defense.name:
        raise ConfigurationError(
            f"The target was trained with the defense {trained.defense.name}, which is not available to train shadow "
            "models with.",
            hint="Install its package (from Python: pass it in TrialData.defense), or train them without "
            'it, which may understate the risk, with the setting defense = "none" of their training.',
        )
    return defense.match_record(trained.defense)
