"""Range membership: was the model trained on any image near the one that the adversary holds?

Tao and Shokri, "Range membership inference attacks" (2024, arXiv 2408.05131), section 4: a data point need not match a
training record exactly for its use in training to be a leak. Points of the range are scored one by one, and the score
of the range is a trimmed mean: most points of a range that holds a member are no members themselves.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._views import View, make_view
from securitynet.attacks.membership.base import TunedThreshold
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel


class RangeMembership(TunedThreshold):
    """The score is the mean log-confidence of the most confident part of the images in the range.

    The adversary holds a copy of each record that is shifted by one pixel to the right, never the record itself. The
    range is what shifts of this copy by a few pixels give; the record is one of these images. A range around the copy
    of a member counts as a member.

    Attributes:
        radius: Largest shift of the copy in each direction, in pixels; each range has (2·radius + 1)² images.
        share: Share of the images of a range that count, the most confident ones. 1 is the mean of all.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    costs: ClassVar[str | None] = "queries the target with several copies of each record"

    radius: int = Field(default=1, ge=1, le=4, description="Largest shift within the range, in pixels.")
    share: float = Field(default=0.34, gt=0, le=1, description="Share of the images of a range that count.")

    @override
    def scores(self, target: Target, data: TrialData, signals: Signals, context: Context) -> NDArray[np.float64]:
        values = []
        for view in list_range(self.radius):
            outputs = signals
            if view != View():  # the record itself, which has been queried
                copies = make_view(data.dataset, view)
                outputs = context.signals(target, replace(data, dataset=copies), np.unique(signals.indices))
                outputs = outputs.select(signals.indices)
            values.append(log_confidence(outputs.logits, outputs.labels))
        return average_largest(np.stack(values), self.share)


def list_range(radius: int) -> list[View]:
    """List the images of a range: shifts by up to ``radius`` pixels of a copy shifted by one pixel to the right.

    Args:
        radius: Largest shift in each direction, at least 1, so that the record itself is among them.
    """
    steps = range(-radius, radius + 1)
    return [View(down=down, right=1 + right) for down in steps for right in steps]


def average_largest(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return the mean of the largest values of each column, N.

    Args:
        values: V×N.
        share: Share of the V values that count; at least one does.
    """
    count = max(1, math.floor(share * len(values) + 1e-9))
    return np.asarray(np.sort(values, axis=0)[-count:].mean(axis=0), dtype=np.float64)
