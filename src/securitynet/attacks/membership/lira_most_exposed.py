"""LiRA on the records that are most exposed: those on which training leaves the clearest mark.

An average over all records hides the few that leak (Aerni, Zhang and Tramèr, CCS 2024, section 3.1). The records are
chosen by the shadow models alone, so nothing about the target's membership enters the choice, and by shadow models that
have the target's defense, so they are the worst records under that defense.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership._evidence import SignalEvidence
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.attacks.membership.lira import LiRA
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target

FEWEST_RECORDS = 40


class LiraMostExposed(LiRA):
    """The score is LiRA's, for the records whose confidence differs most between shadow models with and without them.

    Attributes:
        exposed: Share of the records that are judged; at least `FEWEST_RECORDS` are.
    """

    exposed: float = Field(default=0.1, gt=0, le=1, description="Share of the records that are judged.")

    @override
    def _online(self, target: Target, data: TrialData, context: Context) -> MembershipScores:
        scored = self._score_online(target, data, context)
        marks = np.mean([measure_marks(view) for view in scored.evidence], axis=0)
        count = min(len(marks), max(FEWEST_RECORDS, round(self.exposed * len(marks))))
        chosen = np.sort(np.argsort(-marks, kind="stable")[:count])
        if scored.is_member[chosen].all() or not scored.is_member[chosen].any():
            chosen = np.arange(len(marks))  # both groups are needed to judge any of them
        note = (
            f"Judged on {len(chosen):,} of {len(marks):,} records, those on which training leaves the clearest mark in "
            "the shadow models."
        )
        threshold = scored.threshold
        return MembershipScores.of(
            scored.signals.select(scored.signals.indices[chosen]),
            data,
            scored.scores[chosen],
            threshold if isinstance(threshold, float) else threshold[chosen],
            ~scored.known[chosen],
            (note, *scored.outputs.fidelity, *self.notes()),
        )


def measure_marks(evidence: SignalEvidence) -> NDArray[np.float64]:
    """Return how far the mean signal of shadow models with a record lies above that of those without it, N.

    Args:
        evidence: Signals of the shadow models; records that all or none of them have get minus infinity.
    """
    inside = evidence.included.sum(axis=0)
    outside = len(evidence.included) - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.where(evidence.included, evidence.shadows, 0).sum(axis=0) / inside
        gap -= np.where(evidence.included, 0, evidence.shadows).sum(axis=0) / outside
    return np.asarray(np.where((inside > 0) & (outside > 0), gap, -np.inf), dtype=np.float64)
