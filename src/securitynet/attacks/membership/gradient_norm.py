"""Gradient norm: a record is called a member if its loss has a small gradient with respect to the last layer.

Nasr, Shokri and Houmansadr, "Comprehensive privacy analysis of deep learning" (2019), section 4; Rezaei and Liu
(2021). Training drives the gradients of members towards zero.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership.base import TunedThreshold
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.gradients import LastLayer, last_layer
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

SMALLEST = 1e-100
"""Norms are taken to be at least this, so that the logarithm of 0 does not arise."""


class GradientNorm(TunedThreshold):
    """Score is minus the logarithm of the gradient's norm, in closed form: ‖p − y‖ · ‖(h, 1)‖ for a layer with input h.

    The network must end in a linear layer. One more forward pass, and no backward pass.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    costs: ClassVar[str | None] = "runs the network over all records once more"

    def scores(self, target: Target, data: TrialData, signals: Signals, context: Context) -> NDArray[np.float64]:
        """See `TunedThreshold.scores`."""
        return -log_norms(last_layer(target, data.dataset, signals.indices, progress=context.progress))


def log_norms(layer: LastLayer) -> NDArray[np.float64]:
    """Logarithms of the norms of the gradients of the last layer's weights and bias, N, in double precision.

    The squares of residuals near 1e-20, which members of overfitted targets have, would be 0 in single precision.
    """
    residuals, embeddings = layer.residuals.double(), layer.embeddings.double()
    squares = embeddings.square().sum(dim=1) + float(layer.bias)
    norms = residuals.norm(dim=1) * squares.sqrt()
    return np.asarray(norms.clamp_min(SMALLEST).log().numpy(), dtype=np.float64)
