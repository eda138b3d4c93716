"""Gradient norm: a record is called a member if its loss has a small gradient with respect to the last layer.

Nasr, Shokri and Houmansadr, "Comprehensive privacy analysis of deep learning" (2019), section 4; Rezaei and Liu
(2021). Training drives the gradients of members towards zero.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.membership.base import TunedThreshold
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.gradients import LastLayerGradients, capture_last_layer
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

SMALLEST = 1e-100
"""Lower bound of the norms, so that their logarithm is finite."""


class GradientNorm(TunedThreshold):
    """The score is minus the log of the gradient norm, in closed form ‖p − y‖ · ‖(h, 1)‖ for a layer with input h.

    The network must end in a linear layer. The attack takes one more forward pass and no backward pass.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    costs: ClassVar[str | None] = "runs the network over all records once more"

    @override
    def scores(self, target: Target, data: TrialData, signals: Signals, context: Context) -> NDArray[np.float64]:
        return -log_norms(capture_last_layer(target, data.dataset, signals.indices, progress=context.progress))


def log_norms(layer: LastLayerGradients) -> NDArray[np.float64]:
    """Return the logarithms of the norms of the last layer's gradients (weights and bias), N, in double precision.

    Members of overfitted targets have residuals near 1e-20, whose squares underflow in single precision.
    """
    residuals, embeddings = layer.residuals.double(), layer.embeddings.double()
    squares = embeddings.square().sum(dim=1) + float(layer.bias)
    norms = residuals.norm(dim=1) * squares.sqrt()
    return np.asarray(norms.clamp_min(SMALLEST).log().numpy(), dtype=np.float64)
