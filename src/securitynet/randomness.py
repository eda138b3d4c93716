"""Random streams of training: each has a purpose and a seed, and the global random state is left as it was."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derived_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A seed of 63 bits for one purpose in one epoch, so that no two streams of a run are the same."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A generator of the CPU for one purpose in one epoch."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, epoch))


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Give torch's global random state back, on all devices, as it was before the block."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
