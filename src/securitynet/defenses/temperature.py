"""An output defense that divides logits by a temperature (Shokri et al., 2017, section VIII)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import override

from securitynet.defenses.base import OutputDefense
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import Interface
from securitynet.models.targets.interface import Temperature as TemperatureInterface
from securitynet.models.targets.target import Target


class TemperatureDefense(OutputDefense):
    """Posteriors at a temperature; see `securitynet.models.targets.interface.Temperature`.

    Used alone, it hides nothing from an adversary who knows the temperature and sees posteriors at full precision: the
    logits can be computed from them up to a constant. Combine it with rounding.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"temperature": 10.0},)

    temperature: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="Divisor of the logits; values above 1 hide confidence."
    )

    @override
    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        return TemperatureInterface(temperature=self.temperature)
