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
from securitynet.attacks.membership._evidence import select_evidence
from securitynet.attacks.membership._reference import ReferenceAttack, combine_signals
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import unite
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows import Reduction, ShadowOutputs
from securitynet.models.targets.signals import collect_signals
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
    def _outputs(
        self,
        target: Target,
        data: TrialData,
        records: NDArray[np.int64],
        views: Sequence[ImageDataset],
        context: Context,
    ) -> ShadowOutputs:
        if not self.references:
            return super()._outputs(target, data, records, views, context)
        return compute_reference_outputs(
            self.references, target, data, records, context, reduce=self.signal, views=views[1:]
        )

    @override
    def _offline(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        """With given models and shadow data, no member is known, so the threshold is the median score."""
        if not self.references:
            return super()._offline(target, data, context)
        pool, judged = self.shadows.records(data.splits), len(data.judged)
        views = self._views(target, data)
        queried = context.signals(target, data, unite(data.judged, pool) if self.queries_population else None)
        together = np.concatenate([data.judged, pool if self.queries_population else pool[:0]])
        observed = self._observed(target, data, queried.select(together), views, context)
        outputs = self._outputs(target, data, together, views, context)
        evidence, first = combine_signals(observed, outputs), np.arange(len(together)) < judged
        scores = self.score_views(select_evidence(evidence, first), select_evidence(evidence, ~first))
        notes = (*outputs.fidelity, "No member is known to tune a threshold on: it is the median score.")
        threshold = float(np.median(scores))
        return MembershipScores.of(queried.select(data.judged), data, scores, threshold, notes=notes)


def compute_reference_outputs(
    references: Sequence[GivenModel],
    target: Target,
    data: TrialData,
    records: NDArray[np.int64],
    context: Context,
    *,
    reduce: Reduction,
    views: Sequence[ImageDataset] = (),
) -> ShadowOutputs:
    """Outputs of pre-trained models for records, none of which counts as trained on.

    Args:
        references: The models, M.
        target: With which they are compared.
        data: Of the trial.
        records: Which, N.
        context: Names cache and device.
        reduce: Applied to the outputs of each model as they come.
        views: Copies of the dataset with changed images, V − 1.

    Returns:
        Their outputs, reduced: M×V×N.

    Raises:
        ConfigurationError: If one of them is the target itself, or there are no images to ask about.
        AccessDenied: If the target or one of them returns labels only.
        SecurityNetError: If one of them can't be loaded.
    """
    if data.dataset.images is None:
        raise ConfigurationError("Recorded outputs hold no images to ask reference models about.")
    if target.head == "labels":
        raise AccessDenied(
            f"{target.reference}: references are compared by posteriors, and the target returns labels only."
        )
    labels = data.dataset.labels[records]
    outputs, accuracies = [], []
    for number, given in enumerate(references):
        model = given.load(data, context.device)
        if model.identity.checksum == target.without_interface().identity.checksum:
            raise ConfigurationError(f"The reference model {given.model} is the target itself.")
        if model.head == "labels":
            raise AccessDenied(f"{given.model} returns labels only, and reference models need posteriors.")
        reduced = []
        for view in (data.dataset, *views):
            signals = collect_signals(model, view, np.unique(records), cache=context.cache).select(records)
            reduced.append(reduce(signals.logits, labels))
            if view is data.dataset:
                accuracies.append(signals.correct.mean())
        outputs.append(np.stack(reduced))
        if context.progress:
            context.progress(number + 1, len(references))
    accuracy = float(np.mean(accuracies))
    names = ", ".join(dict.fromkeys(given.model.rpartition("/")[2] for given in references))
    note = (
        f"{len(references)} pre-trained reference model{'s' if len(references) > 1 else ''} ({names}; accuracy "
        f"{accuracy:.3f}) in place of shadow models. It is not known which records they were trained on; they count as "
        "trained on none, which understates the risk of records that they share with the target."
    )
    return ShadowOutputs(np.zeros((len(references), len(records)), dtype=bool), np.stack(outputs), labels, (note,))
