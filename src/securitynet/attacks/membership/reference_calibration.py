"""Reference calibration: a record's loss, less the mean loss that models of other data have on it.

Watson et al., "On the importance of difficulty calibration in membership inference attacks" (2022), section 3.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._given_references import ReferenceModelAttack
from securitynet.attacks.membership._reference import OFFLINE, Evidence
from securitynet.models.shadows import ShadowPlan
from securitynet.records import ThreatModel


class ReferenceCalibration(ReferenceModelAttack):
    """Score is the mean loss under shadow models of other data, less the loss under the target."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (OFFLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "offline"

    shadows: ShadowPlan = Field(
        default=ShadowPlan(pool="offline"), description="Number and training of the shadow models."
    )

    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `ReferenceAttack.signal`."""
        return log_confidence(logits, labels)

    def score(self, records: Evidence, population: Evidence) -> NDArray[np.float64]:
        """See `ReferenceAttack.score`."""
        return calibrated(records.observed, records.shadows, records.included)


def calibrated(
    observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """A signal less its mean over the shadow models that were not trained on the record.

    Args:
        observed: N.
        shadows: M×N.
        included: M×N.

    Returns:
        N; NaN for records that all shadow models were trained on.
    """
    outside = (~included).sum(axis=0)
    total = np.where(included, 0.0, shadows).sum(axis=0)
    return np.asarray(observed - total / np.where(outside > 0, outside, np.nan), dtype=np.float64)
