"""An output defense that rounds posteriors to a few decimal digits (Shokri et al., 2017, section VIII)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import override

from securitynet.defenses.base import OutputDefense
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import Interface, Rounded
from securitynet.models.targets.target import Target


class Rounding(OutputDefense):
    """Posteriors are rounded; see `securitynet.models.targets.interface.Rounded`."""

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"digits": 2}, {"digits": 1})

    digits: int = Field(default=1, ge=0, le=7, description="Digits after the decimal point.")

    @override
    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        return Rounded(digits=self.digits)
