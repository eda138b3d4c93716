"""Label-only, agreement under augmentation: members keep their class when noise is added or the image is shifted.

Choquette-Choo et al., "Label-only membership inference attacks" (2021), sections 3.3 and 3.4: translations and noise.
The share of copies that keep their class is a cheap proxy for the distance to the boundary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership._label_only import NUMBERS_AT_ONCE, LabelOnlyAttack, LabelOracle, as_floats
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Signals
from securitynet.randomness import make_generator


class AugmentationAgreement(LabelOnlyAttack):
    """The score is the share of a record and its altered copies that the target assigns to the true class.

    Attributes:
        sigmas: Standard deviations of the noise, for pixels in [0, 1].
        repeats: Number of noisy copies per standard deviation.
        shift: Pixels by which copies are shifted left, right, up and down; 0 for no shifted copies.
    """

    costs: ClassVar[str | None] = "queries the target dozens of times for each record of a sample"

    records: int = Field(default=500, ge=1, description="Largest number of records of each of the four groups.")
    sigmas: tuple[float, ...] = Field(default=(0.05, 0.1, 0.2), description="Standard deviations of the noise.")
    repeats: int = Field(default=10, ge=1, description="Noisy copies for each standard deviation.")
    shift: int = Field(default=1, ge=0, description="Pixels by which copies are shifted.")

    @override
    def scores(
        self, oracle: LabelOracle, signals: Signals, helpers: Signals, data: TrialData, context: Context
    ) -> NDArray[np.float64]:
        random = make_generator(context.seed, "noise")
        agreed = signals.correct.astype(np.float64)
        copies = 1
        size = max(1, NUMBERS_AT_ONCE // int(np.prod(data.dataset.image_shape)))
        for start in range(0, len(signals), size):
            rows = np.arange(start, min(start + size, len(signals)))
            images, labels = as_floats(data, signals.indices[rows]), torch.from_numpy(signals.labels[rows])
            copies = 1
            for changed in self.changes(images, random):
                agreed[rows] += (oracle(changed) == labels).numpy()
                copies += 1
            if context.progress:
                context.progress(int(rows[-1]) + 1, len(signals))
        return agreed / copies

    def changes(self, images: torch.Tensor, random: torch.Generator) -> Iterator[torch.Tensor]:
        """Yield the altered copies, each N×C×H×W in [0, 1]."""
        for sigma in self.sigmas:
            for _ in range(self.repeats):
                yield (images + sigma * torch.randn(images.shape, generator=random)).clamp(0, 1)
        if self.shift:
            for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                yield shift_images(images, down * self.shift, right * self.shift)


def shift_images(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Shift images by whole pixels; the nearest row or column fills the gap.

    Args:
        images: N×C×H×W.
        down: Pixels to shift down; negative values shift up.
        right: Pixels to shift right; negative values shift left.
    """
    height, width = images.shape[2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return images[:, :, rows][:, :, :, columns]
