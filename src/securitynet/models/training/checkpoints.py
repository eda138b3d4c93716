"""Checkpoints of a training: written atomically, verified when read, and never used for another run.

A checkpoint is a SHA-256 digest followed by a torch archive that is read with ``weights_only=True``. The previous one
is stored beside it, so a damaged checkpoint costs some epochs, not the run.
"""

from __future__ import annotations

import io
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from securitynet.files import read_with_digest, write_with_digest

_FORMAT = 1
_SHARE_OF_TIME = 0.05


@dataclass
class TrainingState:
    """Everything that a run needs to resume after an epoch.

    Attributes:
        fingerprint: Digest of what determines the run: recipe, data, split, initial weights.
        epochs_done: Number of completed epochs.
        module: State of the network.
        optimizer: State of the optimizer.
        history: JSON of the history so far.
        best: State of the network at its best validation loss; None without early stopping.
        procedure: State of the `securitynet.models.training.step.Procedure`.
        losses: Losses of the training records after each epoch, E×N, if they are kept.
        lookahead: The average of `securitynet.models.training.lookahead.Lookahead`, if the recipe has it.
    """

    fingerprint: str
    epochs_done: int
    module: dict[str, Any]
    optimizer: dict[str, Any]
    history: str
    best: dict[str, Any] | None = None
    procedure: dict[str, Any] = field(default_factory=dict)
    losses: torch.Tensor | None = None
    lookahead: dict[str, Any] | None = None


@dataclass
class CheckpointFile:
    """The checkpoint of one run.

    Args:
        path: Path of the file.
        note: Called with messages for the user, about a damaged file or one of another run.
    """

    path: Path
    note: Callable[[str], None]
    _cost: float = field(default=0.0, init=False)
    _written: float = field(default=float("-inf"), init=False)

    @property
    def previous(self) -> Path:
        """Path of the previous checkpoint."""
        return self.path.with_name(self.path.name + ".previous")

    @property
    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return self.path.exists() or self.previous.exists()

    def due(self) -> bool:
        """Whether to write after this epoch: always, unless writing would take over a twentieth of the run time.

        A small network can finish an epoch faster than the disk can store a checkpoint. A crash then loses at most
        twenty times the duration of one write.
        """
        return self._cost <= _SHARE_OF_TIME * (time.monotonic() - self._written)

    def write(self, state: TrainingState) -> None:
        """Store a state; the existing file becomes the previous one."""
        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"format": _FORMAT, **vars(state)}, buffer)
        if self.path.exists():
            # A run that is killed after this line resumes from the previous file.
            os.replace(self.path, self.previous)
        write_with_digest(self.path, buffer.getbuffer())
        self._written = time.monotonic()
        self._cost = self._written - start

    def read(self, fingerprint: str) -> TrainingState | None:
        """Read the latest intact state of the run with this fingerprint, with tensors on the CPU; None without one."""
        for path in (self.path, self.previous):
            try:
                payload = read_with_digest(path)
            except FileNotFoundError:
                continue
            values = None if payload is None else _unpack(payload)
            if values is None:
                self.note(f"The checkpoint {path.name} is damaged and is ignored.")
            elif values.pop("format") != _FORMAT or values["fingerprint"] != fingerprint:
                self.note(f"The checkpoint {path.name} belongs to another run (recipe, data or seed) and is ignored.")
            else:
                return TrainingState(**values)
        return None

    def remove(self) -> None:
        """Delete both files."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def _unpack(payload: bytes) -> dict[str, Any] | None:
    try:
        values = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return None
    return values if isinstance(values, dict) and {"format", "fingerprint"} <= values.keys() else None
