"""`Oracle`: queries a target with the images that an attack generates, and counts them."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from securitynet.models.targets import heads
from securitynet.models.targets.query_count import compute_image_keys
from securitynet.models.targets.target import Target
from securitynet.records import Queries


class Oracle:
    """Queries the target with the images that an attack generates, and counts the queries.

    The count is that of the attack alone: what the process queried before it, for another attack or for a run that was
    interrupted, makes no difference.

    Args:
        target: The target; black-box access suffices.
        known: Batches of images, N×C×H×W, that the attack queried before and that do not count as distinct again.
    """

    def __init__(self, target: Target, known: Iterable[torch.Tensor] = ()) -> None:
        self._target = target
        self._total = 0
        self._keys: set[bytes] = set()
        self._known = {key for images in known for key in compute_image_keys(images)}

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Return the predicted classes of images in [0, 1], N int64 on the CPU."""
        return self._outputs(images).argmax(dim=1) if len(images) else torch.empty(0, dtype=torch.int64)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits up to a constant per row, N×K float32 on the CPU."""
        return heads.to_logits(self._outputs(images), self._target.head)

    @property
    def queries(self) -> Queries:
        """Return the query count so far."""
        return Queries(total=self._total, unique=len(self._keys - self._known))

    def _outputs(self, images: torch.Tensor) -> torch.Tensor:
        outputs = []
        for part in torch.split(images, self._target.batch_size):
            keys = compute_image_keys(part)
            outputs.append(self._target.raw_outputs(part, keys=keys))
            self._total += len(keys) * self._target.backend.repeats
            self._keys.update(keys)
        return torch.cat(outputs)
