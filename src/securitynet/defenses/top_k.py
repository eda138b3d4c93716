"""An output defense that returns only the highest posteriors (Shokri et al., 2017, section VIII)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from typing_extensions import override

from securitynet.defenses.base import OutputDefense
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import Interface, TopK
from securitynet.models.targets.target import Target


class TopKDefense(OutputDefense):
    """Posteriors below the ``k`` highest are set to 0; see `securitynet.models.targets.interface.TopK`."""

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"k": 3}, {"k": 1})

    k: int = Field(default=3, ge=1, description="Number of highest posteriors to return.")
    renormalise: bool = Field(default=False, description="Divide the returned posteriors by their sum.")

    @override
    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        """Build the interface.

        Raises:
            ConfigurationError: If all posteriors would be returned.
        """
        classes = target.num_classes
        if classes is not None and self.k >= classes:
            raise ConfigurationError(
                f"top-k with k = {self.k} hides nothing with {classes} classes.",
                hint=f"Set top-k.k to {classes - 1} or less.",
            )
        return TopK(k=self.k, renormalise=self.renormalise)
