"""`QueryCounter`: counts total and distinct images sent to a target, with a cap that is never exceeded."""

from __future__ import annotations

import hashlib

import torch

from securitynet.errors import QueryBudgetExceeded
from securitynet.records import Queries

_SAMPLE = 64
"""Number of values of a floating-point image that are examined first."""


def compute_image_keys(images: torch.Tensor) -> list[bytes]:
    """Compute a 16-byte key per image: equal images have equal keys, as uint8 or as floats in [0, 1].

    Args:
        images: N×C×H×W, uint8, or floating point in [0, 1]. Floats that are exact multiples of 1/255 (up to float32
            rounding) get the key of their bytes.
    """
    images = images.detach().cpu()
    if images.dtype == torch.uint8:
        rows = list(images.contiguous().flatten(1).numpy())
    else:
        flat = images.float().contiguous().flatten(1)
        rows = list(flat.numpy())
        # For most other images, a few values are enough to see that they are not such multiples.
        likely = _multiples(flat[:, :: max(1, flat.shape[1] // _SAMPLE)]).nonzero()[:, 0]
        which = likely[_multiples(flat[likely])]
        for at, row in zip(which.tolist(), (flat[which] * 255).round_().to(torch.uint8).numpy(), strict=True):
            rows[at] = row
    shape = repr(tuple(images.shape[1:])).encode()
    return [hashlib.blake2b(row, digest_size=16, person=shape[:16]).digest() for row in rows]


def _multiples(values: torch.Tensor) -> torch.Tensor:
    """Whether all values of a row are multiples of 1/255 in [0, 1], to rounding: N."""
    scaled = values * 255
    rounded = scaled.round()
    return (((scaled - rounded).abs() < 1e-4) & (rounded >= 0) & (rounded <= 255)).all(dim=1)


class QueryCounter:
    """Counts the images that a target is sent.

    Args:
        cap: The most distinct images that may ever be sent; None for no cap.
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
            keys: The `compute_image_keys` of the batch.

        Raises:
            QueryBudgetExceeded: If it would overrun the cap; nothing is counted or sent then.
        """
        new = set(keys) - self._seen
        if self.cap is not None and self.unique + len(new) > self.cap:
            raise QueryBudgetExceeded(
                f"The next {len(new)} images would exceed the query cap of {self.cap} ({self.unique} sent so far).",
                hint="Raise --max-queries, or assess fewer records with --limit. Outputs received so far are cached.",
            )
        self.total += len(keys)
        self._seen |= new

    def snapshot(self) -> Queries:
        """The counts as a record."""
        return Queries(total=self.total, unique=self.unique)
