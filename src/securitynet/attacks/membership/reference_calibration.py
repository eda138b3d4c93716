"""Reference calibration: the loss of a record minus the mean loss of models trained on other data.

Watson et al., "On the importance of difficulty calibration in membership inference attacks" (2022), section 3.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership._confidence import log_confidence
from securitynet.attacks.membership._evidence import SignalEvidence
from securitynet.attacks.membership._given_references import ReferenceModelAttack
from securitynet.attacks.membership._reference import OFFLINE
from securitynet.models.shadows import ShadowPlan
from securitynet.records import ThreatModel


class ReferenceCalibration(ReferenceModelAttack):
    """The score is the mean loss under shadow models trained on other data minus the loss under the target."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (OFFLINE,)
    pool: ClassVar[Literal["online", "offline"]] = "offline"

    shadows: ShadowPlan = Field(
        default=ShadowPlan(pool="offline"), description="Number and training of the shadow models."
    )

    @override
    def signal(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return log_confidence(logits, labels)

    @override
    def score(self, records: SignalEvidence, population: SignalEvidence) -> NDArray[np.float64]:
        return calibrate_signal(records.observed, records.shadows, records.included)


def calibrate_signal(
    observed: NDArray[np.float64], shadows: NDArray[np.float64], included: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Subtract from a signal its mean over the shadow models that were not trained on the record.

    Args:
        observed: Signal under the target, N.
        shadows: The same signal under the shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.

    Returns:
        Calibrated signal, N; NaN for records that all shadow models were trained on.
    """
    outside = (~included).sum(axis=0)
    total = np.where(included, 0.0, shadows).sum(axis=0)
    return np.asarray(observed - total / np.where(outside > 0, outside, np.nan), dtype=np.float64)
