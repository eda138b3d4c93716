"""Random streams of training: each has a purpose and a seed, and torch's global random state is not touched."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derive_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """A seed of 63 bits for one purpose in one epoch, so that no two streams of a run are equal.

    Args:
        seed: Of the run.
        purpose: Name of the stream.
        epoch: Number of the epoch, for streams that start anew in each.
    """
    digest = hashlib.sha256(f"{purpose}/{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one purpose in one epoch; arguments as for `derive_seed`.

    Args:
        seed: Of the run.
        purpose: Name of the stream.
        epoch: Number of the epoch, for streams that start anew in each.
    """
    return torch.Generator().manual_seed(derive_seed(seed, purpose, epoch))


def seed_global_state(seed: int) -> None:
    """Seed torch's global random state on all devices that are in use, as ``torch.manual_seed`` does.

    The latter formats a traceback for each kind of device that is not in use, which short trainings notice.

    Args:
        seed: The seed.
    """
    if any(backend.is_initialized() for backend in (torch.cuda, torch.xpu)) or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def isolate_random_state() -> Iterator[None]:
    """Restore torch's global random state on all devices after the block."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
