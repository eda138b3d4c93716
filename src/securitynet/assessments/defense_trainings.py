"""Trains the assessed model several times with each defense, to measure the risk of the worst records.

Trained models are cached, and a training that was killed resumes from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.assessments.assessed_target import make_trial_data
from securitynet.assessments.assessment import Assessment
from securitynet.assessments.private_baseline import NoiseCandidate, list_candidates, tune_for_utility
from securitynet.assessments.run_trial import ReportProgress, name_phase
from securitynet.assessments.worst_records import (
    AuditedRecords,
    choose_audited_records,
    measure_worst_case,
    plan_trainings,
)
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.datasets.splits import Splits
from securitynet.defenses.base import OutputDefense, TrainingDefense
from securitynet.files import find_cache_folder
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import find_own_architecture
from securitynet.models.store.cached_model import ModelSpec
from securitynet.models.store.parallel import obtain_models
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.results.document import WorstCase


@dataclass(frozen=True, eq=False)
class DefenseTrainings:
    """The trainings of one model with different defenses, on the same records and by the same coins.

    Attributes:
        assessment: The assessment of the model, which has a model record.
        audited: The audited records.
        architecture: What the models are built from.
        recipe: The recipe of the model.
        report_progress: Called with (what, epochs done, epochs in all).
    """

    assessment: Assessment
    audited: AuditedRecords
    architecture: str
    recipe: Recipe
    report_progress: ReportProgress | None = None

    @classmethod
    def plan(
        cls, assessment: Assessment, strongest: str | None, report_progress: ReportProgress | None = None
    ) -> DefenseTrainings:
        """Choose the audited records.

        Args:
            assessment: The assessment of a model with a model record.
            strongest: Name of the membership trial that ranks the members; None for no ranking.
            report_progress: See the attribute.

        Raises:
            SecurityNetError: If there are too few records, or the architecture is not available.
        """
        assessed, config = assessment.assessed_target, assessment.config
        assert assessed.trained is not None  # the caller has checked it
        built = find_own_architecture(assessed.target, assessed.trained)
        assert built is not None  # the record names one
        audited = choose_audited_records(
            assessed.dataset,
            assessed.splits.members,
            _rank_members(assessment, strongest),
            config.defense_trainings,
            config.seed,
        )
        return cls(assessment, audited, built.reference, assessed.trained.recipe, report_progress)

    def measure(
        self, defense: OutputDefense | TrainingDefense | None = None, recipe: Recipe | None = None
    ) -> WorstCase:
        """Train the model with a defense, or put trainings without one behind it, and measure the worst case.

        Args:
            defense: The defense; None for none.
            recipe: The recipe, where it is not that of the model with what the defense advises.

        Raises:
            SecurityNetError: If the model can't be trained or attacked in this way.
        """
        assessed, config = self.assessment.assessed_target, self.assessment.config
        training = defense if isinstance(defense, TrainingDefense) else None
        if recipe is None:
            recipe = self.recipe if training is None else self.recipe.model_copy(update=training.advised({}))
        specs = plan_trainings(
            assessed.dataset, assessed.splits.members, self.audited, self.architecture, recipe, training, config.seed
        )

        def put_behind(target: Target, splits: Splits) -> Target:
            assert isinstance(defense, OutputDefense)
            data = TrialData(assessed.dataset, splits)
            context = Context(seed=config.seed, cache=config.cache or find_cache_folder(), device=config.device)
            return target.through(defense.interface(target, data, context))

        return measure_worst_case(
            obtain_models(specs, **self._storing()),
            self.audited,
            assessed.dataset,
            assessed.splits,
            behind=put_behind if isinstance(defense, OutputDefense) else None,
            augment=recipe.augment,
            fprs=config.fprs,
            level=config.level,
            cache=config.cache or find_cache_folder(),
        )

    def tune_private_baseline(self) -> NoiseCandidate:
        """Choose the setting of DP-SGD with the best utility; see `tune_for_utility`."""
        assessed, config = self.assessment.assessed_target, self.assessment.config

        def measure_accuracies(specs: list[ModelSpec], records: NDArray[np.int64]) -> list[float]:
            models = obtain_models(specs, **self._storing())
            cache = config.cache or find_cache_folder()
            return [
                float(collect_signals(one.target, assessed.dataset, records, cache=cache).correct.mean())
                for one in models
            ]

        return tune_for_utility(
            list_candidates(self.recipe),
            assessed.dataset,
            assessed.splits.members,
            self.architecture,
            measure_accuracies,
            config.seed,
        )

    def _storing(self) -> dict[str, Any]:
        config = self.assessment.config
        return {
            "kind": "shadows",
            "cache": config.cache or find_cache_folder(),
            "device": config.device,
            "progress": name_phase(self.report_progress, "training with a defense"),
        }


def _rank_members(assessment: Assessment, strongest: str | None) -> NDArray[np.int64]:
    """Members, the most exposed first, by the scores of a membership attack on the target itself."""
    output = next((trial.output for trial in assessment.trials if trial.name == strongest), None)
    if not isinstance(output, MembershipScores):
        return np.empty(0, np.int64)
    members = make_trial_data(assessment.assessed_target).splits.members
    scores, inside = output.scores, output.is_member
    if (output["auc"] or 0.5) < 0.5:  # reversed, as an adversary would who knows that they are
        scores = -scores
    order = np.argsort(-scores[inside], kind="stable")
    ranked = output.indices[inside][order]
    return np.asarray(ranked[np.isin(ranked, members)], dtype=np.int64)
