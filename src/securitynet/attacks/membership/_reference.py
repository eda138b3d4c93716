"""What attacks that compare the target with shadow models share: evidence, thresholds, and how they are run.

**Online** attacks have shadow models that were trained on the judged records and others that were not (the auditor's
setting); their threshold is tuned on the records that the adversary knows. **Offline** attacks have shadow models of
other data only; their threshold is tuned on shadow models that play the target.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

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
"""With fewer, a shadow model that plays the target leaves too few to compare it with."""

PRETENDED = 4
"""Shadow models that play the target, to tune an offline attack."""

ONLINE = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
OFFLINE = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW)


@dataclass(frozen=True, eq=False)
class Evidence:
    """A signal of N records under a target and under M shadow models.

    Attributes:
        observed: N.
        shadows: M×N.
        included: Whether shadow model m was trained on record n, M×N.
    """

    observed: NDArray[np.float64]
    shadows: NDArray[np.float64]
    included: NDArray[np.bool_]

    def select(self, at: NDArray[np.bool_]) -> Evidence:
        """That of some of the records."""
        return Evidence(self.observed[at], self.shadows[:, at], self.included[:, at])


@dataclass(frozen=True, eq=False)
class Pretended:
    """A shadow model in the part of the target, whose members are known because we trained it.

    Attributes:
        records: Evidence of the records that at least one of the others was not trained on.
        population: Of those that it was not trained on itself.
        is_member: Of ``records``, N.
    """

    records: Evidence
    population: Evidence
    is_member: NDArray[np.bool_]


def pretend(shadows: NDArray[np.float64], included: NDArray[np.bool_], count: int = PRETENDED) -> list[Pretended]:
    """The first ``count`` shadow models in the part of the target, judged by all others.

    Args:
        shadows: Signals, M×N.
        included: M×N.
        count: How many at most; those without members or without non-members are left out.
    """
    found = []
    for number in range(min(count, len(shadows))):
        others = np.arange(len(shadows)) != number
        usable = ~included[others].all(axis=0)
        is_member = included[number][usable]
        if is_member.any() and not is_member.all():
            records = Evidence(shadows[number][usable], shadows[others][:, usable], included[others][:, usable])
            found.append(Pretended(records, records.select(~is_member), is_member))
    return found


class ReferenceAttack(Attack):
    """An attack that compares the target's signal of a record with that of shadow models.

    A subclass says what the signal is and how evidence becomes scores.

    Attributes:
        shadows: How many shadow models, and how they are trained.
    """

    output: ClassVar[type[Output]] = MembershipScores
    costs: ClassVar[str | None] = "trains many shadow models"
    imitates: ClassVar[bool] = True
    pool: ClassVar[Literal["online", "offline"]]
    asks_population: ClassVar[bool] = False
    """Whether an offline attack asks the target about the shadow data too."""

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
        """The signal, N, of logits N×K of the target or of a shadow model."""

    @abstractmethod
    def score(self, records: Evidence, population: Evidence) -> NDArray[np.float64]:
        """One score per record, higher meaning "more likely a member".

        Args:
            records: Those to be scored.
            population: Others, which the target was not trained on.
        """

    def tuned(self, pretended: list[Pretended]) -> ReferenceAttack:
        """This attack with settings chosen on shadow models that play the target; itself if it has none to choose."""
        del pretended
        return self

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """The shadow models: attacks with the same plan share them."""
        return shared_shadows(target, data, self.shadows, context)

    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        """See `Attack.run`."""
        return self._online(target, data, context) if self.pool == "online" else self._offline(target, data, context)

    def _signals(self, found: ShadowOutputs) -> NDArray[np.float64]:
        """M×N, one shadow model at a time: in double precision, outputs of all would take much memory at once."""
        return np.stack([self.signal(outputs, found.labels) for outputs in found.outputs])

    def _online(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        signals = context.signals(target, data)
        found = shadow_outputs(target, data, signals.indices, self.shadows, context)
        evidence = Evidence(self.signal(signals.logits, signals.labels), self._signals(found), found.included)
        known = known_records(signals.indices, data)
        is_member = np.isin(signals.indices, data.splits.members)
        scores = self.score(evidence, evidence.select(known & ~is_member))
        threshold = tuned_threshold(scores, is_member, known)
        return MembershipScores.of(signals, data, scores, threshold, ~known, found.fidelity)

    def _offline(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        pool = self.shadows.records(data.splits)
        asked = context.signals(target, data, union(data.judged, pool) if self.asks_population else None)
        signals = asked.select(data.judged)
        together = np.concatenate([signals.indices, pool])
        found = shadow_outputs(target, data, together, self.shadows, context)
        shadows, judged = self._signals(found), len(signals)
        pretended = pretend(shadows[:, judged:], found.included[:, judged:])
        if not pretended:
            raise ConfigurationError(
                "No shadow model can play the target: all others were trained on its non-members.",
                hint="Train more shadow models, or a smaller share of the shadow data for each.",
            )
        attack = self.tuned(pretended)
        scores = [attack.score(part.records, part.population) for part in pretended]
        is_member = np.concatenate([part.is_member for part in pretended])
        threshold = tuned_threshold(np.concatenate(scores), is_member, np.ones(len(is_member), dtype=bool))
        assert isinstance(threshold, float)  # no labels, so one for all
        records = Evidence(self.signal(signals.logits, signals.labels), shadows[:, :judged], found.included[:, :judged])
        population = records.select(np.zeros(judged, dtype=bool))
        if self.asks_population:
            others = asked.select(pool)
            population = Evidence(
                self.signal(others.logits, others.labels), shadows[:, judged:], found.included[:, judged:]
            )
            population = population.select(np.asarray(~population.included.all(axis=0)))
        return MembershipScores.of(signals, data, attack.score(records, population), threshold, notes=found.fidelity)


def best_setting(attack: ReferenceAttack, pretended: list[Pretended], name: str, values: tuple[float, ...]) -> float:
    """The value of a field with the highest mean AUC on shadow models that play the target; the first of equals."""

    def quality(value: float) -> float:
        tried = attack.model_copy(update={name: value})
        aucs = []
        for part in pretended:
            scores = tried.score(part.records, part.population)
            aucs.append(roc.auc_value(scores[part.is_member], scores[~part.is_member]))
        return float(np.mean(aucs))

    return max(values, key=quality)
