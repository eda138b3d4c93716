"""Queries of a target for images that a detector makes: counted, answered from what is known, cached on disk."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.errors import TargetError
from securitynet.files import read_with_digest, stable_hash, write_with_digest
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets import heads
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.query_count import image_keys
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Queries

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

FEWEST, FEWEST_HERE = 16, 256
"""Images that are asked about at once at least, where the answers decide what is asked next; the second, at most half a
call, of a network that runs here."""

_KEY_BYTES = 16

_VERSION = 3
"""Of what pieces hold; raise it when the same configuration leads to other ones."""


class QueryClient:
    """Queries a target under black-box access as a detector proceeds, and counts.

    What is known already, such as the answers for clean records, is not asked again.

    Args:
        target: Any that answers about new images.

    Attributes:
        sent: Images that were sent, repeats included.
        half: The target in bf16; None where it computes so already, or can't.
        together: Images that are made up before they are asked about.
        fewest: Images that are asked about at once at least, where the answers decide what is asked next.

    Raises:
        TargetError: If the target holds recorded outputs only.
    """

    def __init__(self, target: Target) -> None:
        if isinstance(target.backend, RecordedBackend):
            raise TargetError(
                f"{target.reference} holds recorded outputs; it can't be asked about images that a detector makes up."
            )
        self.target = target
        self.half = target.in_half()
        self.together = 4 * target.batch_size
        # A network that runs here takes as long for fewer, and its answers cost nothing else.
        self.fewest = max(FEWEST, min(FEWEST_HERE, target.batch_size // 2)) if target.backend.white_box else FEWEST
        self.sent = 0
        self._keys: set[bytes] = set()
        self._known: dict[bytes, torch.Tensor] = {}
        self._recent: list[bytes] = []

    def know(self, images: torch.Tensor, outputs: torch.Tensor) -> None:
        """Take raw outputs, N×K, as the answers for images, N×C×H×W."""
        self._known.update(zip(image_keys(images), outputs, strict=True))

    def know_signals(self, dataset: ImageDataset, signals: Signals) -> None:
        """Take the outputs of `Signals` as the answers for their records."""
        outputs = torch.from_numpy(signals.outputs)
        for start in range(0, len(signals), 4096):
            rows = slice(start, start + 4096)
            self.know(dataset.batch(signals.indices[rows]), outputs[rows])

    def outputs(self, images: torch.Tensor, *, remember: bool = False, half: bool = False) -> torch.Tensor:
        """Raw outputs, N×K, in batches that suit the target; equal images of a batch are sent once.

        Args:
            images: N×C×H×W, at least one.
            remember: Keep the answers, for images that will be asked about again.
            half: Ask the target in bf16, if `half` is there.
        """
        target = (self.half if half else None) or self.target
        return torch.cat([self._batch(part, target, remember) for part in torch.split(images, target.batch_size)])

    def posteriors(self, images: torch.Tensor, *, half: bool = False) -> torch.Tensor:
        """Posteriors, N×K; see `outputs`.

        Raises:
            AccessDenied: If the target answers labels only.
        """
        return heads.to_posteriors(self.outputs(images, half=half), self.target.head)

    def deviations(self, images: torch.Tensor) -> NDArray[np.float64] | None:
        """How far bf16 moves the logit of the class predicted, against those of others at most, N; None without `half`.

        Args:
            images: N×C×H×W, at least one.
        """
        if self.half is None:
            return None
        answers = []
        for part in torch.split(images, self.target.batch_size):
            keys = image_keys(part)
            answers.append(self.half.raw_outputs(part, keys=keys))  # what is known is no answer of bf16
            self._count(len(part), keys)
        coarse = heads.to_logits(torch.cat(answers), self.target.head).double()
        change = coarse - heads.to_logits(self.outputs(images), self.target.head).double()
        own = change.gather(1, coarse.argmax(dim=1, keepdim=True))
        return np.asarray((change - own).abs().amax(dim=1).numpy())

    def decided(self, images: torch.Tensor, margin: float | None) -> torch.Tensor:
        """Raw outputs, N×K, whose largest are those of the target; see `outputs`.

        Args:
            images: N×C×H×W, at least one.
            margin: Between a prediction's logit and all others, from which on an answer in bf16 is beyond doubt: the
                others are asked for again. None asks the target in its own precision.
        """
        if margin is None:
            return self.outputs(images)
        found = self.outputs(images, half=True)
        largest = heads.to_logits(found, self.target.head).topk(2, dim=1).values
        doubtful = torch.nonzero(largest[:, 0] - largest[:, 1] <= margin).flatten()
        if len(doubtful):
            found[doubtful] = self.outputs(images[doubtful])
        return found

    def embeddings(self, images: torch.Tensor) -> torch.Tensor:
        """What the classifier layer receives, N×D.

        Raises:
            AccessDenied: Under black-box access.
        """
        found = []
        for part in torch.split(images, self.target.batch_size):
            found.append(self.target.embeddings(part))
            self._count(len(part), image_keys(part))
        return torch.cat(found)

    def _batch(self, images: torch.Tensor, target: Target, remember: bool = False) -> torch.Tensor:
        keys = image_keys(images)
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        wanted = sorted(at for key, at in first.items() if key not in self._known)
        answers = {}
        if wanted:
            new = [keys[at] for at in wanted]
            chosen = images if len(wanted) == len(images) else images[torch.tensor(wanted)]
            rows = target.raw_outputs(chosen, keys=new)
            self._count(len(new), new)
            if len(wanted) == len(images):
                if remember:
                    self._known.update(zip(new, rows, strict=True))
                return rows
            answers = dict(zip(new, rows, strict=True))
            if remember:
                self._known.update(answers)
        return torch.stack([answers[key] if key in answers else self._known[key] for key in keys])

    def _count(self, count: int, keys: Sequence[bytes]) -> None:
        self.sent += count
        self._recent.extend(keys)
        self._keys.update(keys)

    def query_count(self) -> Queries:
        """Queries so far, without those that were answered from what is known."""
        return Queries(total=self.sent, unique=len(self._keys))

    def piece(self, path: Path | None, compute: Callable[[], Arrays]) -> Arrays:
        """Arrays that questions lead to: from their file if an earlier run finished them, else computed and kept.

        The queries of the earlier run are counted all the same.

        Args:
            path: Of the file; None keeps nothing.
            compute: Asks.
        """
        held = None if path is None else _read(path)
        if held is not None:
            keys = held.pop("asked keys")
            self._count(int(held.pop("asked total")), [row.tobytes() for row in keys])
            return held
        before, self._recent = self.sent, []
        found = compute()
        if path is not None:
            keys = np.frombuffer(b"".join(dict.fromkeys(self._recent)), np.uint8).reshape(-1, _KEY_BYTES)
            _write(path, {**found, "asked keys": keys, "asked total": np.asarray(self.sent - before)})
        return found


def margin_of(errors: np.ndarray) -> float:
    """How far two precisions may lie apart: six deviations beyond the mean of differences, twice the largest at least.

    Args:
        errors: Differences, n.
    """
    deviation = float(errors.std(ddof=1)) if len(errors) > 1 else 0.0
    return max(abs(float(errors.mean())) + 6 * deviation, 2 * float(np.abs(errors).max()))


def pieces_folder(
    target: Target,
    data: TrialData,
    context: Context,
    method: str,
    configuration: Mapping[str, Any],
    records: Mapping[str, NDArray[np.int64]],
) -> Path | None:
    """Where the pieces of one piece of work lie: a folder named by all that decides them; None without a cache."""
    if context.cache is None:
        return None
    key = {
        "version": _VERSION,
        "method": method,
        "configuration": dict(configuration),
        "checksum": target.backend.checksum,
        "preprocessing": target.preprocessing.canonical(),
        "head": target.head,
        "precision": target.precision,
        "dataset": data.dataset.fingerprint,
        "records": {name: indices.tolist() for name, indices in records.items()},
        "seed": context.seed,
    }
    return context.cache / "screenings" / stable_hash(key)


def joined(pieces: list[Arrays]) -> Arrays:
    """Arrays of pieces, one after the other."""
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_with_digest(path, buffer.getvalue())


def _read(path: Path) -> Arrays | None:
    """The arrays of a piece, or None if it is absent or damaged (or of a version that wrote no digest)."""
    try:
        payload = read_with_digest(path)
    except FileNotFoundError:
        return None
    if payload is None:
        logger.warning("A piece of a screening is damaged or of an old version, and is computed again: %s", path.name)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
