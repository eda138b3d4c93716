"""SecurityNet: a ResNet-18 learns the target's posteriors on auxiliary images.

SecurityNet (Zhang et al., 2024), section 3.1 and appendix B: 30 epochs of SGD at a learning rate of 0.01, on half of
the target's training set or on images of another kind. Momentum, weight decay and batches of 64 are ours (ML-Doctor's).
"""

from __future__ import annotations

from typing import ClassVar

from securitynet.attacks.stealing._pooled import PlainStealing
from securitynet.models.training.recipe import Recipe


class SecurityNetSurrogate(PlainStealing):
    """Trains with cross-entropy on posteriors; ``architecture=wrn-50-2`` is the paper's larger surrogate."""

    protocol: ClassVar[Recipe] = Recipe(epochs=30, learning_rate=1e-2, schedule="constant")
