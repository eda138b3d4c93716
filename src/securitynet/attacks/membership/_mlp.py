"""The MLP of SecurityNet's attacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securitynet.attacks.membership._features import Scale, logit_scaled
from securitynet.attacks.membership._learned import MLP, Features, LearnedAttack
from securitynet.models.targets.signals import Signals


class PosteriorMLP(LearnedAttack):
    """A network with layers of 64 and 32 neurons on posteriors (SecurityNet, section 3.2).

    Attributes:
        scale: ``logit``: log p − log(1 − p) of each posterior, from logits in double precision; ``posterior``: p
            itself, which for overfitted targets is 1 for most records. Either is brought to mean 0 and a norm of about
            1, which posteriors have too: at the paper's learning rate, a hundred inputs of deviation 1 make all ReLUs
            of the second layer die within the first steps.
    """

    scale: Literal["logit", "posterior"] = "logit"

    def scaled(self, signals: Signals) -> NDArray[np.float32]:
        """Posteriors on the chosen scale, N×K."""
        return logit_scaled(signals.logits) if self.scale == "logit" else signals.posteriors

    def scales(self, features: Features) -> list[Scale]:
        """See `LearnedAttack.scales`."""
        return [Scale(values, unit_norm=True) for values in features]

    def network(self, widths: Sequence[int]) -> nn.Module:
        """See `LearnedAttack.network`."""
        return MLP(widths[0], 64, 32, 2)
