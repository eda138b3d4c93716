"""What has been asked of a target: total and distinct images, and a cap that is never overrun."""

from __future__ import annotations

import hashlib

import torch

from securitynet.errors import QueryBudgetExceeded
from securitynet.records import Queries


def image_keys(images: torch.Tensor) -> list[bytes]:
    """A 16-byte key per image: equal images have equal keys, whether they come as uint8 or as floats in [0, 1].

    Args:
        images: N×C×H×W, uint8, or floating point in [0, 1]. Floats that are exact multiples of 1/255 (to float32's
            rounding) are keyed by their bytes.
    """
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        scaled = images.float() * 255
        rounded = scaled.round()
        exact = (((scaled - rounded).abs() < 1e-4) & (rounded >= 0) & (rounded <= 255)).flatten(1).all(dim=1)
        as_bytes = rounded.nan_to_num(0).clamp(0, 255).to(torch.uint8)
        rows = [
            (as_bytes[i] if exact[i] else images[i].float()).contiguous().numpy().tobytes() for i in range(len(images))
        ]
    else:
        flat = images.contiguous().flatten(1).numpy()
        rows = [row.tobytes() for row in flat]
    shape = repr(tuple(images.shape[1:])).encode()
    return [hashlib.blake2b(row, digest_size=16, person=shape[:16]).digest() for row in rows]


class QueryLedger:
    """Counts the images a target was sent.

    Args:
        cap: Most distinct images that may ever be sent; None for no cap.
    """

    def __init__(self, cap: int | None = None) -> None:
        self.cap = cap
        self.total = 0
        self._seen: set[bytes] = set()

    @property
    def unique(self) -> int:
        """Distinct images so far."""
        return len(self._seen)

    def charge(self, keys: list[bytes]) -> None:
        """Count a batch **before** it is sent.

        Args:
            keys: The `image_keys` of the batch.

        Raises:
            QueryBudgetExceeded: If it would overrun the cap; nothing is counted or sent then.
        """
        new = set(keys) - self._seen
        if self.cap is not None and self.unique + len(new) > self.cap:
            raise QueryBudgetExceeded(
                f"The next {len(new)} images would exceed the query cap of {self.cap} ({self.unique} asked so far).",
                hint="Raise --max-queries, or assess fewer records with --limit. Answers so far are kept.",
            )
        self.total += len(keys)
        self._seen |= new

    def snapshot(self) -> Queries:
        """The counts as a record."""
        return Queries(total=self.total, unique=self.unique)
