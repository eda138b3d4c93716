"""MLP on full posteriors: a network with 64 and 32 neurons learns from the records that the adversary knows.

SecurityNet, section 3.2: 50 epochs of Adam at 1e-2, under the public-model protocol. Here the best of these epochs is
chosen on held-out known records, unless ``early_stopping`` is off. The posteriors are in the order
of the classes, and the label is not an input.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from securitynet.attacks.membership._learned import Features
from securitynet.attacks.membership._mlp import PosteriorMLP
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel


class MLPPosteriors(PosteriorMLP):
    """The input is all K posteriors."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    @override
    def features(self, model: Target, signals: Signals, data: TrialData, context: Context) -> Features:
        return (self.scaled(signals),)
