"""A search in blocks of labels, so that its memory does not grow with the number of classes.

Labels do not touch one another, so that blocks find what one search of all labels finds. Between the short search and
the full one only the state of the labels that go on is stored; of a finished block, only masks and patterns in 8 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from securitynet.detectors._neural_cleanse.costs import LAST_SHARE
from securitynet.detectors._neural_cleanse.trigger_search import SearchRules, TriggerSearch
from securitynet.models.targets.target import Target
from securitynet.models.targets.threads import leave_cores_to_threads
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState

logger = logging.getLogger(__name__)

Rows = dict[str, torch.Tensor]
"""States or results of some labels; the first dimension of each tensor is that of the labels."""

BLOCK_BYTES = 1 << 28
"""Most bytes of the state of the labels that are searched at once, 256 MiB."""

_COPIES = 4  # present values, two moments of Adam, best values


def label_bytes(shape: Sequence[int]) -> int:
    """Return the bytes of the state of one label for images of a shape (C, H, W): mask and pattern, four times."""
    channels, height, width = shape
    return 4 * _COPIES * (channels + 1) * height * width


def choose_block_length(shape: Sequence[int]) -> int:
    """Return how many labels are searched at once for images of a shape (C, H, W)."""
    return max(1, BLOCK_BYTES // label_bytes(shape))


@dataclass(eq=False)
class BlockSearch:
    """Searches blocks of labels from one epoch to another, and resumes where it was interrupted.

    Attributes:
        target: Under white-box access.
        images: S×C×H×W uint8, on the target's device.
        rules: How to search.
        folder: Folder of checkpoints; None stores none.
        name: Digest of everything that determines the search.
        report_progress: Called with the share of the work that is done.
        total: Epochs of single labels in the whole search.
        done: Of these, those that are done.
    """

    target: Target
    images: torch.Tensor
    rules: SearchRules
    folder: Path | None
    name: str
    report_progress: Callable[[float], None]
    total: int
    done: float = field(default=0.0, init=False)

    def file(self, name: str) -> CheckpointFile | None:
        """The file of this name, for a part of the search."""
        return None if self.folder is None else CheckpointFile(self.folder / name, logger.info)

    def search(self, labels: list[int], first: int, last: int, state: Rows | None, part: str) -> TriggerSearch:
        """Search a block of labels from epoch ``first`` to ``last``.

        Args:
            labels: The labels of the block.
            first: Number of the first epoch.
            last: Number of the epoch after the last.
            state: Their state after the epochs before ``first``; None at the start.
            part: Name of this part of the search, for its checkpoint.
        """
        run = TriggerSearch(self.target, self.images, labels, self.rules)
        # Norms of light epochs do not count, so that there is one to compare with only after the first full epoch.
        end = max(first, last - max(1, int(LAST_SHARE * last)), self.rules.light_epochs + 1)
        file, key = self.file(f"checkpoint-{part}"), f"{self.name}:{part}"
        saved = file.read(key) if file else None
        if saved is not None:
            run.restore(saved.module)
            self.done += (saved.epochs_done - first) * len(labels)
            first = saved.epochs_done
        elif state is not None:
            run.restore(state)
        for epoch in range(first, last):
            if not bool(run.active.any()):
                break
            if epoch == end:
                run.costs.mark()
            running, before = int(run.active.sum()), self.done

            def report(count: int, running: int = running) -> None:
                self.done += count * len(labels) / running
                self.report_progress(min(1.0, self.done / self.total))

            with leave_cores_to_threads(self.images.device):
                run.epoch(epoch, report)
            self.done = before + len(labels)
            if file and epoch + 1 < last and file.due():
                file.write(TrainingState(key, epoch + 1, run.state(), {}, ""))
        return run

    def forget(self, part: str) -> None:
        """Delete the checkpoint of a part that is finished."""
        file = self.file(f"checkpoint-{part}")
        if file is not None:
            file.remove()

    def drop(self, part: str) -> None:
        """Delete the result of a part."""
        file = self.file(f"finished-{part}")
        if file is not None:
            file.remove()

    def stored(self, part: str) -> Rows | None:
        """Return the result of a part that was finished before; None if it was not."""
        file = self.file(f"finished-{part}")
        saved = file.read(f"{self.name}:{part}") if file else None
        return None if saved is None else saved.module

    def store(self, part: str, rows: Rows) -> None:
        """Store the result of a part, and delete its checkpoint."""
        file = self.file(f"finished-{part}")
        if file is not None:
            file.write(TrainingState(f"{self.name}:{part}", 0, rows, {}, ""))
            file.previous.unlink(missing_ok=True)
            self.forget(part)


def take_rows(rows: Rows, chosen: torch.Tensor) -> Rows:
    """Return some of the rows."""
    return {name: value[chosen] for name, value in rows.items()}


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Concatenate rows."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
