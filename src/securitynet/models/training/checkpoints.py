"""Checkpoints of a training: written whole or not at all, checked when read, and never taken from another run.

A checkpoint is a SHA-256 digest followed by a torch archive that is read with ``weights_only=True``. The one before it
is kept beside it: a checkpoint that is damaged costs some epochs, not the run.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from securitynet.files import atomic_write

_FORMAT = 1
_DIGEST_BYTES = 32
_SHARE_OF_TIME = 0.05


@dataclass
class State:
    """All that a run needs to go on after an epoch.

    Attributes:
        fingerprint: Of what decides the run: recipe, data, split, initial weights.
        epochs_done: Epochs that are finished.
        module: State of the network.
        optimizer: State of the optimizer.
        history: JSON of the history so far.
        best: State of the network at its best validation loss; None without early stopping.
        procedure: What a `securitynet.models.training.step.Procedure` of its own keeps.
    """

    fingerprint: str
    epochs_done: int
    module: dict[str, Any]
    optimizer: dict[str, Any]
    history: str
    best: dict[str, Any] | None = None
    procedure: dict[str, Any] = field(default_factory=dict)


@dataclass
class CheckpointFile:
    """The checkpoint of one run.

    Args:
        path: Where it lies.
        note: Told what the user should know: a damaged file, one of another run.
    """

    path: Path
    note: Callable[[str], None]
    _cost: float = field(default=0.0, init=False)
    _written: float = field(default=float("-inf"), init=False)

    @property
    def previous(self) -> Path:
        """Where the checkpoint before the last one lies."""
        return self.path.with_name(self.path.name + ".previous")

    @property
    def exists(self) -> bool:
        """Whether any checkpoint lies there."""
        return self.path.exists() or self.previous.exists()

    def due(self) -> bool:
        """Whether to write after this epoch: always, unless writing would take over a twentieth of the time.

        Small networks finish an epoch faster than a disk takes to store a file for good; what a crash can cost stays at
        twenty times the time of writing one.
        """
        return self._cost <= _SHARE_OF_TIME * (time.monotonic() - self._written)

    def write(self, state: State) -> None:
        """Store a state; the file that was there becomes the previous one."""
        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"format": _FORMAT, **vars(state)}, buffer)
        payload = buffer.getbuffer()
        if self.path.exists():
            # Killed after this line, a run finds the previous file only, and goes on from there.
            os.replace(self.path, self.previous)
        with atomic_write(self.path) as stream:
            stream.write(hashlib.sha256(payload).digest())
            stream.write(payload)
        self._written = time.monotonic()
        self._cost = self._written - start

    def read(self, fingerprint: str) -> State | None:
        """The latest sound state of the run with this fingerprint, its tensors on the CPU; None if there is none."""
        for path in (self.path, self.previous):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            values = _unpack(content)
            if values is None:
                self.note(f"The checkpoint {path.name} is damaged and is not used.")
            elif values.pop("format") != _FORMAT or values["fingerprint"] != fingerprint:
                self.note(f"The checkpoint {path.name} is of another run (recipe, data or seed) and is not used.")
            else:
                return State(**values)
        return None

    def remove(self) -> None:
        """Delete both files."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def _unpack(content: bytes) -> dict[str, Any] | None:
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    try:
        values = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return None
    return values if isinstance(values, dict) and {"format", "fingerprint"} <= values.keys() else None
