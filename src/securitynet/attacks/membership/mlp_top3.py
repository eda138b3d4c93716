"""MLP on the largest posteriors: a network with 64 and 32 neurons receives the three largest, in descending order.

SecurityNet, sections 3.2 and 4.2: with many classes, it performs better than the network on all posteriors.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership._features import rank_values
from securitynet.attacks.membership._learned import Features
from securitynet.attacks.membership._mlp import PosteriorMLP
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel


class MLPTop3(PosteriorMLP):
    """The input is the ``k`` largest posteriors (all of them for targets with fewer classes)."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    k: int = Field(default=3, ge=1)

    @override
    def features(self, model: Target, signals: Signals, data: TrialData, context: Context) -> Features:
        return (rank_values(self.scaled(signals), self.k),)
