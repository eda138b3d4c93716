"""The target whose records' exposure is measured, and the shadow models that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.assessments.audit import read_architecture
from securitynet.assessments.exposure_config import ExposureConfig
from securitynet.assessments.training_defense import recreate_defense
from securitynet.attacks.membership import _lira
from securitynet.attacks.membership._confidence import scale_confidence
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.files import find_cache_folder
from securitynet.methods.data import TrialData
from securitynet.metrics import rates, roc
from securitynet.models.loading.load import load_target
from securitynet.models.shadows import ShadowOutputs, ShadowPlan, obtain_shadow_outputs
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.targets.signals import Signals, collect_signals
from securitynet.models.targets.target import Target

ReportProgress = Callable[[str, int, int], None]
"""Called with what is being done, and how much of it is done."""


@dataclass(frozen=True, eq=False)
class ExposedTarget:
    """An assessed target with the signals that its exposure is computed from.

    Attributes:
        target: The target.
        data: Its dataset, split and training.
        signals: Its outputs for the N judged records.
        is_member: Whether it was trained on each of them, N.
        shadows: Scaled confidence under the shadow models, M×1×N, and which records they were trained on.
        cache: Folder of stored models and signals.
    """

    target: Target
    data: TrialData
    signals: Signals
    is_member: NDArray[np.bool_]
    shadows: ShadowOutputs
    cache: Path

    @property
    def shadow_signals(self) -> NDArray[np.float64]:
        """Scaled confidence under the shadow models, M×N."""
        return self.shadows.outputs[:, 0].astype(np.float64)

    def find_threshold(self, fpr: float) -> float:
        """Find the score above which records are identified as members.

        Args:
            fpr: False-positive rate, which the non-members resolve.
        """
        others = np.sort(self.scores[~self.is_member])
        return float(others[len(others) - 1 - roc.count_allowed(fpr, len(others))])

    def attack_with_lira(self, signals: Signals) -> NDArray[np.float64]:
        """Attack a model trained like the target with its shadow models.

        Args:
            signals: Outputs of the model for the judged records.

        Returns:
            LiRA's scores, N.
        """
        observed = scale_confidence(signals.logits, signals.labels)
        return _lira.compute_online_ratio(observed, self.shadow_signals, self.shadows.included)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """LiRA's scores under the target, N."""
        return self.attack_with_lira(self.signals)


def prepare_target(
    config: ExposureConfig,
    trained: TargetRecord,
    dataset: ImageDataset,
    report_progress: ReportProgress | None = None,
) -> ExposedTarget:
    """Load the target, train its shadow models or load them from the store, and attack it with LiRA.

    Args:
        config: The configuration.
        trained: The model record.
        dataset: The dataset of the training.
        report_progress: Called during long work.

    Raises:
        SecurityNetError: See `measure_exposure`.
    """
    splits = restore_splits(trained, dataset)
    if not roc.resolves(len(splits.non_members), config.fpr, config.level):
        raise ConfigurationError(
            f"{len(splits.non_members):,} non-members do not resolve a false-positive rate of {config.fpr:g}; "
            f"{rates.count_draws(config.fpr, config.level):,} are needed.",
            hint="Raise --fpr.",
        )
    reference = config.architecture or read_architecture(trained)
    target = load_target(
        reference if ":" in reference else f"arch:{reference}",
        weights=config.weights,
        dataset=dataset,
        device=config.device,
    )
    cache = config.cache or find_cache_folder()
    data = TrialData(dataset, splits, trained, None, None, recreate_defense(trained))
    signals = collect_signals(target, dataset, data.judged, cache=cache)
    shadows = obtain_shadow_outputs(
        target,
        dataset,
        splits,
        signals.indices,
        ShadowPlan(count=config.shadows),
        reduce=scale_confidence,
        trained=trained,
        defense=data.defense,
        cache=cache,
        seed=config.seed,
        device=config.device,
        progress=None if report_progress is None else lambda done, total: report_progress("epochs", done, total),
    )
    return ExposedTarget(target, data, signals, np.isin(signals.indices, splits.members), shadows, cache)
