"""Pre-trained reference models in place of shadow models, where a target is too large to train models like it.

They tell how hard a record is. Which records they were trained on is not known, so they count as trained on none: a
member that they were trained on too looks like a non-member, which understates the risk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from securitynet.attacks._given_models import GivenModel
from securitynet.attacks.membership._reference import Evidence, ReferenceAttack
from securitynet.attacks.membership.base import MembershipScores, known_records, tuned_threshold
from securitynet.datasets.ordering import union
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import ShadowOutputs
from securitynet.models.targets.signals import collect
from securitynet.models.targets.target import Target


class ReferenceModelAttack(ReferenceAttack):
    """An attack that compares the target with shadow models, or with models that exist already.

    Attributes:
        references: Pre-trained models of the same classes; none trains shadow models.
    """

    references: tuple[GivenModel, ...] = Field(
        default=(),
        # Left out of what makes the id of a trial where there are none: trials keep the ids that they had.
        exclude_if=lambda value: not value,
        description="Pre-trained models in place of shadow models: references, or tables with model and weights.",
    )

    @field_validator("references", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, value: object) -> object:
        return (value,) if isinstance(value, (str, dict, GivenModel)) else value

    @override
    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        return () if self.references else super().shared_work(target, data, context)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        if not self.references:
            return super().run(target, data, context)
        compare = self._compare_partial if self.pool == "online" else self._compare_shadow
        return compare(target, data, context)

    def _compare_partial(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        """With the records that the adversary knows, on which the threshold is tuned."""
        signals = context.signals(target, data)
        found = reference_outputs(self.references, target, data, signals.indices, context)
        evidence = Evidence(self.signal(signals.logits, signals.labels), self._signals(found), found.included)
        known, is_member = known_records(signals.indices, data), np.isin(signals.indices, data.splits.members)
        scores = self.score(evidence, evidence.select(known & ~is_member))
        threshold = tuned_threshold(scores, is_member, known)
        return MembershipScores.of(signals, data, scores, threshold, ~known, found.fidelity)

    def _compare_shadow(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        """With shadow data only: no member is known, so the threshold is the median score."""
        pool = self.shadows.records(data.splits)
        asked = context.signals(target, data, union(data.judged, pool) if self.queries_population else None)
        signals, judged = asked.select(data.judged), len(data.judged)
        together = np.concatenate([signals.indices, pool if self.queries_population else pool[:0]])
        found = reference_outputs(self.references, target, data, together, context)
        values = asked.select(together)
        evidence = Evidence(self.signal(values.logits, values.labels), self._signals(found), found.included)
        first = np.arange(len(together)) < judged
        scores = self.score(evidence.select(first), evidence.select(~first))
        notes = (*found.fidelity, "No member is known to tune a threshold on: it is the median score.")
        return MembershipScores.of(signals, data, scores, float(np.median(scores)), notes=notes)


def reference_outputs(
    references: Sequence[GivenModel], target: Target, data: TrialData, records: NDArray[np.int64], context: Context
) -> ShadowOutputs:
    """Outputs of pre-trained models for records, none of which counts as trained on.

    Args:
        references: The models, M.
        target: With which they are compared.
        data: Of the trial.
        records: Which, N.
        context: Names cache and device.

    Raises:
        ConfigurationError: If one of them is the target itself, or there are no images to ask about.
        AccessDenied: If the target or one of them answers with labels only.
        SecurityNetError: If one of them can't be loaded.
    """
    if data.dataset.images is None:
        raise ConfigurationError("Recorded outputs hold no images to ask reference models about.")
    if target.head == "labels":
        raise AccessDenied(f"{target.reference}: references are compared by posteriors, and only labels are answered.")
    outputs = np.empty((len(references), len(records), data.dataset.num_classes), dtype=np.float32)
    for number, given in enumerate(references):
        model = given.load(data, context.device)
        if model.identity.checksum == target.without_interface().identity.checksum:
            raise ConfigurationError(f"The reference model {given.model} is the target itself.")
        if model.head == "labels":
            raise AccessDenied(f"{given.model} answers with labels only, and reference models need posteriors.")
        signals = collect(model, data.dataset, np.unique(records), cache=context.cache)
        outputs[number] = signals.select(records).logits
        if context.progress:
            context.progress(number + 1, len(references))
    labels = data.dataset.labels[records]
    accuracy = float((outputs.argmax(axis=2) == labels).mean())
    names = ", ".join(dict.fromkeys(given.model.rpartition("/")[2] for given in references))
    note = (
        f"{len(references)} pre-trained reference model{'s' if len(references) > 1 else ''} ({names}; accuracy "
        f"{accuracy:.3f}) in place of shadow models. It is not known which records they were trained on; they count as "
        "trained on none, which understates the risk of records that they share with the target."
    )
    return ShadowOutputs(np.zeros((len(references), len(records)), dtype=bool), outputs, labels, (note,))
