"""The base of attacks that compare the target with shadow models.

**Online** attacks have, for each record, shadow models that were trained on it and others that were not (the auditor's
setting); their threshold is tuned on the records that the adversary knows. **Offline** attacks have only shadow models
trained on other data; their threshold is tuned on shadow models that take the role of the target.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from securitynet.attacks._shadows import shadow_outputs
from securitynet.attacks.base import Attack
from securitynet.attacks.membership.base import MembershipScores, known_records, tuned_threshold
from securitynet.datasets.ordering import union
from securitynet.errors import ConfigurationError
from securitynet.methods.base import Output, SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.shared_models import shared_shadows
from securitynet.metrics import roc
from securitynet.models.shadows import ShadowOutputs, ShadowPlan
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

FEWEST_SHADOWS = 4
"""With fewer, too few would be left to compare with a shadow model in the role of the target."""

PRETENDED = 4
"""Number of shadow models that take the role of the target to tune an offline attack."""

ONLINE = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
OFFLINE = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW)


@dataclass(frozen=True, eq=False)
class Evidence:
    """A signal of N records under a target and under M shadow models.

    Attributes:
        observed: Signal under the target, N.
        shadows: Signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
    """

    observed: NDArray[np.float64]
    shadows: NDArray[np.float64]
    included: NDArray[np.bool_]

    def select(self, at: NDArray[np.bool_]) -> Evidence:
        """Return the evidence of some of the records, given by a mask or by positions."""
        return Evidence(self.observed[at], self.shadows[:, at], self.included[:, at])


@dataclass(frozen=True, eq=False)
class StandInTarget:
    """A shadow model in the role of the target, whose members the adversary knows.

    Attributes:
        records: Evidence of the records that at least one other shadow model was not trained on.
        population: Evidence of those of them that this model was not trained on.
        is_member: Whether this model was trained on each of ``records``, N.
    """

    records: Evidence
    population: Evidence
    is_member: NDArray[np.bool_]


def make_stand_ins(
    shadows: NDArray[np.float64], included: NDArray[np.bool_], count: int = PRETENDED
) -> list[StandInTarget]:
    """Put the first ``count`` shadow models in the role of the target, with all others as their shadow models.

    Args:
        shadows: Signals under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
        count: Largest number; models without members or without non-members are left out.
    """
    stand_ins = []
    for number in range(min(count, len(shadows))):
        others = np.arange(len(shadows)) != number
        usable = ~included[others].all(axis=0)
        is_member = included[number][usable]
        if is_member.any() and not is_member.all():
            records = Evidence(shadows[number][usable], shadows[others][:, usable], included[others][:, usable])
            stand_ins.append(StandInTarget(records, records.select(~is_member), is_member))
    return stand_ins


class ReferenceAttack(Attack):
    """An attack that compares the signal of a record under the target with that under shadow models.

    Subclasses define the signal and how evidence becomes scores.

    Attributes:
        shadows: How many shadow models there are, and how they are trained.
    """

    output: ClassVar[type[Output]] = MembershipScores
    costs: ClassVar[str | None] = "trains many shadow models"
    imitates: ClassVar[bool] = True
    pool: ClassVar[Literal["online", "offline"]]
    queries_population: ClassVar[bool] = False
    """Whether an offline attack queries the target with the shadow data as well."""

    shadows: ShadowPlan = Field(default_factory=ShadowPlan, description="Number and training of the shadow models.")

    @model_validator(mode="after")
    def _plan_fits(self) -> ReferenceAttack:
        if self.shadows.pool != self.pool:
            raise ConfigurationError(
                f"{type(self).__name__} is an {self.pool} attack; its shadow models can't be {self.shadows.pool}.",
                hint=f'Set the pool of its shadow models to "{self.pool}".',
            )
        if self.shadows.count < FEWEST_SHADOWS:
            raise ConfigurationError(
                f"{type(self).__name__} needs at least {FEWEST_SHADOWS} shadow models, not {self.shadows.count}."
            )
        return self

    @abstractmethod
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the signal, N, for logits, N×K, of the target or of a shadow model."""

    @abstractmethod
    def score(self, records: Evidence, population: Evidence) -> NDArray[np.float64]:
        """Return one score per record; a higher score means "more likely a member".

        Args:
            records: Evidence of the records to score.
            population: Evidence of other records, which the target was not trained on.
        """

    def tuned(self, stand_ins: list[StandInTarget]) -> ReferenceAttack:
        """Return this attack with its settings, if any, tuned on shadow models in the role of the target."""
        del stand_ins
        return self

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """List the shadow models; attacks with the same plan share them."""
        return shared_shadows(target, data, self.shadows, context)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        return self._online(target, data, context) if self.pool == "online" else self._offline(target, data, context)

    def _signals(self, shadows: ShadowOutputs) -> NDArray[np.float64]:
        """Return M×N signals, computed one model at a time: all outputs in double precision would take much memory."""
        return np.stack([self.signal(outputs, shadows.labels) for outputs in shadows.outputs])

    def _online(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        signals = context.signals(target, data)
        outputs = shadow_outputs(target, data, signals.indices, self.shadows, context)
        evidence = Evidence(self.signal(signals.logits, signals.labels), self._signals(outputs), outputs.included)
        known = known_records(signals.indices, data)
        is_member = np.isin(signals.indices, data.splits.members)
        scores = self.score(evidence, evidence.select(known & ~is_member))
        threshold = tuned_threshold(scores, is_member, known)
        return MembershipScores.of(signals, data, scores, threshold, ~known, outputs.fidelity)

    def _offline(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        pool = self.shadows.records(data.splits)
        queried = context.signals(target, data, union(data.judged, pool) if self.queries_population else None)
        signals = queried.select(data.judged)
        together = np.concatenate([signals.indices, pool])
        outputs = shadow_outputs(target, data, together, self.shadows, context)
        shadows, judged = self._signals(outputs), len(signals)
        stand_ins = make_stand_ins(shadows[:, judged:], outputs.included[:, judged:])
        if not stand_ins:
            raise ConfigurationError(
                "No shadow model can take the role of the target: the others were trained on all of its non-members.",
                hint="Train more shadow models, or a smaller share of the shadow data for each.",
            )
        attack = self.tuned(stand_ins)
        scores = [attack.score(part.records, part.population) for part in stand_ins]
        is_member = np.concatenate([part.is_member for part in stand_ins])
        threshold = tuned_threshold(np.concatenate(scores), is_member, np.ones(len(is_member), dtype=bool))
        assert isinstance(threshold, float)  # no labels, so one for all
        records = Evidence(
            self.signal(signals.logits, signals.labels), shadows[:, :judged], outputs.included[:, :judged]
        )
        population = records.select(np.zeros(judged, dtype=bool))
        if self.queries_population:
            others = queried.select(pool)
            population = Evidence(
                self.signal(others.logits, others.labels), shadows[:, judged:], outputs.included[:, judged:]
            )
            population = population.select(np.asarray(~population.included.all(axis=0)))
        return MembershipScores.of(signals, data, attack.score(records, population), threshold, notes=outputs.fidelity)


def best_setting(
    attack: ReferenceAttack, stand_ins: list[StandInTarget], name: str, values: tuple[float, ...]
) -> float:
    """Return the value of a field with the highest mean AUC on shadow models in the role of the target.

    Args:
        attack: The attack to tune.
        stand_ins: Shadow models in the role of the target.
        name: Name of the field.
        values: Values to try; ties go to the first.
    """

    def quality(value: float) -> float:
        tried = attack.model_copy(update={name: value})
        aucs = []
        for part in stand_ins:
            scores = tried.score(part.records, part.population)
            aucs.append(roc.auc_value(scores[part.is_member], scores[~part.is_member]))
        return float(np.mean(aucs))

    return max(values, key=quality)
