"""Posteriors of logits divided by a temperature, which makes them alike (Shokri et al., 2017, section VIII)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from securitynet.defenses.base import OutputDefense
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import Interface
from securitynet.models.targets.interface import Temperature as TemperatureInterface
from securitynet.models.targets.target import Target


class TemperatureDefense(OutputDefense):
    """Posteriors at a temperature; see `securitynet.models.targets.interface.Temperature`.

    It hides nothing from an adversary who knows the temperature and reads posteriors to full precision: the logits
    follow from them up to a constant. Rounded as well, it does.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"temperature": 10.0},)

    temperature: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="What logits are divided by; above 1 hides confidence."
    )

    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        """See `OutputDefense.interface`."""
        return TemperatureInterface(temperature=self.temperature)
