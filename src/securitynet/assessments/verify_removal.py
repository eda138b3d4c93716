"""Were these records removed from the model? It is compared with models that were trained anew without them.

Retraining without the records is what unlearning stands in for (Bourtoule et al., "Machine unlearning", 2021), so
models that were retrained in that way show what the outputs for removed records look like, and how much they vary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership.lira import LiRA
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.metrics.removal import RemovalTest, judge_removal
from securitynet.models.shadows import choose_shadow_defense, find_own_architecture
from securitynet.models.shadows.store import specify_shadow
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.parallel import obtain_models
from securitynet.models.targets.signals import Progress, collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.training_defense import TrainingDefense
from securitynet.randomness import derive_seed


def check_removal(
    target: Target,
    dataset: ImageDataset,
    removed: NDArray[np.int64],
    original: TargetRecord,
    *,
    count: int = 39,
    defense: TrainingDefense | None = None,
    cache: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> RemovalTest:
    """Compare a model with models that are trained like the original, without the removed records.

    The models differ in their seeds only. They are kept in the cache, so an interrupted run continues.

    Args:
        target: The model from which the records were removed.
        dataset: The dataset of the original training.
        removed: The removed records, sorted: members of the original model.
        original: The model record of the training before the removal.
        count: Number of models to train; 39 or more for a verdict.
        defense: The defense that the record names, if any.
        cache: Folder of trained models and signals.
        seed: Determines the seeds of the models.
        device: Where to train.
        progress: Called with (epochs done, epochs in all).

    Raises:
        ConfigurationError: If a record was no member of the original, none remains, or the architecture is unknown.
        SecurityNetError: If the models can't be trained.
    """
    members = restore_splits(original, dataset).members
    foreign = np.setdiff1d(removed, members)
    if not len(removed) or len(foreign):
        raise ConfigurationError(
            f"{len(foreign)} of {len(removed)} records were no members of the original model."
            if len(foreign)
            else "No removed records are given.",
            hint="List records that the model was trained on before the removal.",
        )
    built = find_own_architecture(target, original)
    assert built is not None  # the record names one
    rest = np.setdiff1d(members, removed)
    specs = [
        specify_shadow(
            dataset,
            rest,
            built.reference,
            original.recipe.model_copy(update={"seed": derive_seed(seed, "training without removed records", number)}),
            choose_shadow_defense(original, defense),
        )
        for number in range(count)
    ]
    models = obtain_models(specs, kind="shadows", cache=cache, device=device, progress=progress)
    signal = LiRA().signal

    def measure_confidence(model: Target) -> float:
        outputs = collect_signals(model, dataset, removed, cache=cache)
        return float(signal(outputs.logits, outputs.labels).mean())

    return judge_removal(
        len(removed), measure_confidence(target), [measure_confidence(model.target) for model in models]
    )
