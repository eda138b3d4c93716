"""An output defense that returns predicted classes only."""

from __future__ import annotations

from typing_extensions import override

from securitynet.defenses.base import OutputDefense
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import Interface, LabelsOnly
from securitynet.models.targets.target import Target


class LabelOnly(OutputDefense):
    """Posteriors and logits are refused; see `securitynet.models.targets.interface.LabelsOnly`."""

    @override
    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        return LabelsOnly()
