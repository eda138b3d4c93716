"""The base of attacks that compare the target with shadow models.

**Online** attacks have, for each record, shadow models that were trained on it and others that were not (the auditor's
setting); their threshold is tuned on the records that the adversary knows. **Offline** attacks have only shadow models
trained on other data; their threshold is tuned on shadow models that take the role of the target.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from securitynet.attacks._shadows import compute_shadow_outputs
from securitynet.attacks.base import Attack
from securitynet.attacks.membership._evidence import (
    SignalEvidence,
    StandInTarget,
    Views,
    make_stand_ins,
    select_evidence,
)
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.attacks.membership._views import MOST_QUERIES, make_views
from securitynet.attacks.membership.base import find_known_records, tune_threshold
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import unite
from securitynet.errors import ConfigurationError
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.methods.shared_models import list_shared_shadows
from securitynet.models.shadows import ShadowOutputs, ShadowPlan, resolve_training
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

FEWEST_SHADOWS = 4
"""With fewer, too few would be left to compare with a shadow model in the role of the target."""

ONLINE = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
OFFLINE = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW)


class ReferenceAttack(Attack):
    """An attack that compares the signal of a record under the target with that under shadow models.

    Subclasses define the signal and how evidence becomes scores.

    Attributes:
        queries: How many views of each record the models are queried with; see `_views.list_views`.
        shadows: How many shadow models there are, and how they are trained.
    """

    output: ClassVar[type[Output]] = MembershipScores
    costs: ClassVar[str | None] = "trains many shadow models"
    trains_like_target: ClassVar[bool] = True
    pool: ClassVar[Literal["online", "offline"]]
    queries_population: ClassVar[bool] = False
    """Whether an offline attack queries the target with the shadow data as well."""
    fewest_shadows: ClassVar[int] = FEWEST_SHADOWS
    fewest_left_out: ClassVar[int] = 1
    """Number of shadow models without a record that an offline attack needs to score it."""

    queries: int = Field(
        default=1,
        ge=1,
        le=MOST_QUERIES,
        # Left out of the trial id at its default: trials that knew no other views keep their ids.
        exclude_if=lambda value: value == 1,
        description="Queries for each record: itself, and copies changed as the training recipe's augmentation does.",
    )
    shadows: ShadowPlan = Field(default_factory=ShadowPlan, description="Number and training of the shadow models.")

    @model_validator(mode="after")
    def _plan_fits(self) -> ReferenceAttack:
        if self.shadows.pool != self.pool and not (self.pool == "offline" and self.shadows.pool == "known"):
            raise ConfigurationError(
                f"{type(self).__name__} is an {self.pool} attack; its shadow models can't be {self.shadows.pool}.",
                hint=f'Set the pool of its shadow models to "{self.pool}".',
            )
        if self.shadows.count < self.fewest_shadows:
            raise ConfigurationError(
                f"{type(self).__name__} needs at least {self.fewest_shadows} shadow models, not {self.shadows.count}."
            )
        return self

    @abstractmethod
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the signal, N, for logits, N×K, of the target or of a shadow model."""

    @abstractmethod
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        """Return one score per record; a higher score means "more likely a member".

        Args:
            records: Evidence of the records to score.
            population: Evidence of other records, which the target was not trained on.
        """

    def score_views(self, records: Views, population: Views) -> NDArray[np.float64]:
        """Return the mean score of each record over the views that the models were queried with, N.

        For LiRA, this is the mean log-likelihood ratio; for RMIA, each view has a vote.
        """
        scores = [self.score(one, others) for one, others in zip(records, population, strict=True)]
        return np.asarray(np.mean(scores, axis=0), dtype=np.float64)

    def notes(self) -> tuple[str, ...]:
        """Return notes for the measurements; none by default."""
        return ()

    def tuned(self, stand_ins: Sequence[StandInTarget]) -> ReferenceAttack:
        """Return this attack with its settings, if any, tuned on shadow models in the role of the target."""
        del stand_ins
        return self

    @property
    @override
    def needs_shadow_parts(self) -> bool:
        return self.shadows.pool == "offline"

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """List the shadow models; attacks with the same plan share them."""
        return list_shared_shadows(target, data, self.shadows, context)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        return self._online(target, data, context) if self.pool == "online" else self._offline(target, data, context)

    def _outputs(
        self,
        target: Target,
        data: TrialData,
        records: NDArray[np.int64],
        views: Sequence[ImageDataset],
        context: Context,
    ) -> ShadowOutputs:
        """Return the signals of the models that the target is compared with, M×V×N."""
        return compute_shadow_outputs(target, data, records, self.shadows, context, reduce=self.signal, views=views[1:])

    def _views(self, target: Target, data: TrialData) -> tuple[ImageDataset, ...]:
        """Return the dataset in each view; they follow the recipe with which the shadow models are trained."""
        if self.queries == 1:
            return (data.dataset,)
        training = resolve_training(self.shadows, target, data.trained, data.defense)
        return make_views(data.dataset, training.recipe.augment, self.queries)

    def _observed(
        self,
        target: Target,
        data: TrialData,
        signals: Signals,
        views: Sequence[ImageDataset],
        context: Context,
    ) -> NDArray[np.float64]:
        """Return the signals of the target, V×N, for the records of its outputs on the first view."""
        observed = [self.signal(signals.logits, signals.labels)]
        for view in views[1:]:
            outputs = context.signals(target, replace(data, dataset=view), np.unique(signals.indices))
            outputs = outputs.select(signals.indices)
            observed.append(self.signal(outputs.logits, outputs.labels))
        return np.stack(observed)

    def _online(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        scored = self._score_online(target, data, context)
        notes = (*scored.outputs.fidelity, *self.notes())
        return MembershipScores.of(scored.signals, data, scored.scores, scored.threshold, ~scored.known, notes)

    def _score_online(self, target: Target, data: TrialData, context: Context) -> ScoredOnline:
        """Score all judged records by shadow models whose training sets are drawn from them."""
        views = self._views(target, data)
        signals = context.signals(target, data)
        observed = self._observed(target, data, signals, views, context)
        outputs = self._outputs(target, data, signals.indices, views, context)
        evidence = combine_signals(observed, outputs)
        known = find_known_records(signals.indices, data)
        is_member = np.isin(signals.indices, data.splits.members)
        scores = self.score_views(evidence, select_evidence(evidence, known & ~is_member))
        threshold = tune_threshold(scores, is_member, known)
        return ScoredOnline(signals, outputs, evidence, known, is_member, scores, threshold)

    def _offline(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        pool = self.shadows.records(data.splits)
        chosen = np.setdiff1d(data.judged, pool, assume_unique=True)  # without known non-members that serve as data
        judged = len(chosen)
        views = self._views(target, data)
        queried = context.signals(target, data, unite(chosen, pool) if self.queries_population else chosen)
        signals = queried.select(chosen)
        together = np.concatenate([signals.indices, pool])
        evaluated = queried.select(together) if self.queries_population else signals
        observed = self._observed(target, data, evaluated, views, context)
        outputs = self._outputs(target, data, together, views, context)
        stand_ins = make_stand_ins(
            outputs.outputs[:, :, judged:].swapaxes(0, 1).astype(np.float64, copy=False),
            outputs.included[:, judged:],
            observed[:, judged:] if self.queries_population else None,
            least=self.fewest_left_out,
            separate=self.queries_population,
        )
        if not stand_ins:
            raise ConfigurationError(
                "No shadow model can take the role of the target: the others were trained on all of its non-members.",
                hint="Train more shadow models, or a smaller share of the shadow data for each.",
            )
        attack = self.tuned(stand_ins)
        scores = [attack.score_views(part.records, part.population) for part in stand_ins]
        is_member = np.concatenate([part.is_member for part in stand_ins])
        threshold = tune_threshold(np.concatenate(scores), is_member, np.ones(len(is_member), dtype=bool))
        assert isinstance(threshold, float)  # no labels, so one for all
        evidence = combine_signals(observed, outputs)
        first = np.arange(observed.shape[1]) < judged
        records, population = select_evidence(evidence, first), select_evidence(evidence, ~first)
        left_out = np.asarray(~population[0].included.all(axis=0), dtype=np.bool_)
        population = select_evidence(population, left_out)
        result = attack.score_views(records, population)
        return MembershipScores.of(signals, data, result, threshold, notes=(*outputs.fidelity, *self.notes()))


@dataclass(frozen=True, eq=False)
class ScoredOnline:
    """The scores of all judged records, N, and what they follow from.

    Attributes:
        signals: Outputs of the target.
        outputs: Outputs of the shadow models.
        evidence: Signals of both, one for each view.
        known: Whether the adversary knows the membership of each record, N.
        is_member: Whether each is a member, N.
        scores: Scores, N.
        threshold: Threshold, tuned on the known records.
    """

    signals: Signals
    outputs: ShadowOutputs
    evidence: list[SignalEvidence]
    known: NDArray[np.bool_]
    is_member: NDArray[np.bool_]
    scores: NDArray[np.float64]
    threshold: float | NDArray[np.float64]


def combine_signals(observed: NDArray[np.float64], outputs: ShadowOutputs) -> list[SignalEvidence]:
    """Combine signals of the target, V×N, with those of its shadow models for the same records, one for each view.

    Args:
        observed: Signals of the target, V×N.
        outputs: Signals of the shadow models, M×V×N; records beyond the N first are left out.
    """
    count = observed.shape[1]
    shadows = np.asarray(outputs.outputs[:, :, :count], dtype=np.float64)
    return [SignalEvidence(own, shadows[:, view], outputs.included[:, :count]) for view, own in enumerate(observed)]
