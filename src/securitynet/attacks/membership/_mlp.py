"""The MLP of the SecurityNet paper's attacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from typing_extensions import override

from securitynet.attacks.membership._features import Scale, scale_logits
from securitynet.attacks.membership._learned import MLP, Features, LearnedAttack
from securitynet.models.targets.signals import Signals


class PosteriorMLP(LearnedAttack):
    """An attack with a network of 64 and 32 neurons on posteriors (SecurityNet, section 3.2).

    Attributes:
        scale: ``logit``: log p − log(1 − p) of each posterior, from logits in double precision; ``posterior``: p
            itself, which is 1 for most records of overfitted targets. Both are standardised to mean 0 and a norm of
            about 1 per record, like that of posteriors: at the paper's learning rate, a hundred inputs with standard
            deviation 1 would make all ReLUs of the second layer die within the first steps.
        early_stopping: Whether the network is used as it was at the epoch with the lowest loss on known records that
            it did not learn from. The paper trains all epochs on all known records, which overfits with many classes.
    """

    version: ClassVar[int] = 2  # the best epoch is chosen on held-out records
    exact_together: ClassVar[bool] = True

    scale: Literal["logit", "posterior"] = "logit"
    early_stopping: bool = Field(
        default=True,
        # Left out of the trial id at its default: trials keep the ids that they had.
        exclude_if=lambda value: value,
        description="Choose the best epoch on a fifth of the known records; false: all epochs on all, as in the paper.",
    )

    @property
    @override
    def stops_early(self) -> bool:
        return self.early_stopping

    def scaled(self, signals: Signals) -> NDArray[np.float32]:
        """Return the posteriors on the chosen scale, N×K."""
        return scale_logits(signals.logits) if self.scale == "logit" else signals.posteriors

    @override
    def scales(self, features: Features) -> list[Scale]:
        return [Scale(values, unit_norm=True) for values in features]

    @override
    def network(self, widths: Sequence[int]) -> nn.Module:
        return MLP(widths[0], 64, 32, 2)
