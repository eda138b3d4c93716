"""Queries with the images that a detector generates: counted, not repeated for known images, and cached on disk."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.devices import uses_bfloat16
from securitynet.errors import TargetError
from securitynet.files import hash_stably, read_with_digest, write_with_digest
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets import heads
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.query_count import compute_image_keys
from securitynet.models.targets.signals import Signals
from securitynet.models.targets.target import Target
from securitynet.records import Queries

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

FEWEST, FEWEST_HERE = 16, 256
"""Smallest batches where outputs decide what is queried next: for remote targets, and for local networks, where it is
at most half of the usual batch."""

Screen = Literal["none", "bf16", "auto"]
"""Whether queries are sent to the network in bf16 first: never, always, or where that is faster."""

_KEY_BYTES = 16

_VERSION = 3
"""Version of the stored pieces; increase it when the same configuration gives other results."""


class QueryClient:
    """Queries a target with black-box access and counts the queries.

    Images whose outputs are known already, such as clean records, are not queried again.

    Args:
        target: The target; it must accept new images.

    Attributes:
        target: The target, with black-box access.
        sent: Number of images sent, including repetitions.
        half: The target in bf16; None if it computes in bf16 already, or cannot.
        together: Number of images to generate before a query.
        fewest: Smallest batch where outputs decide what is queried next.

    Raises:
        TargetError: If the target holds recorded outputs only.
    """

    def __init__(self, target: Target) -> None:
        if isinstance(target.backend, RecordedBackend):
            raise TargetError(
                f"{target.reference} is a file of recorded outputs; it has none for images that a detector generates."
            )
        self.target = target
        self.half = target.in_half()
        self.together = 4 * target.batch_size
        # A local network takes as long for smaller batches, and its outputs cost nothing else.
        self.fewest = max(FEWEST, min(FEWEST_HERE, target.batch_size // 2)) if target.backend.white_box else FEWEST
        self.sent = 0
        self._keys: set[bytes] = set()
        self._known: dict[bytes, torch.Tensor] = {}
        self._recent: list[bytes] = []

    def screens(self, screen: Screen) -> bool:
        """Whether queries are sent in bf16 first, if the target can be queried so."""
        return screen == "bf16" or (screen == "auto" and uses_bfloat16("auto", self.target.backend.device))

    def know(self, images: torch.Tensor, outputs: torch.Tensor) -> None:
        """Remember raw outputs, N×K, of images, N×C×H×W."""
        self._known.update(zip(compute_image_keys(images), outputs, strict=True))

    def know_signals(self, dataset: ImageDataset, signals: Signals) -> None:
        """Remember the outputs in `Signals` for the records of a dataset."""
        outputs = torch.from_numpy(signals.outputs)
        for start in range(0, len(signals), 4096):
            rows = slice(start, start + 4096)
            self.know(dataset.batch(signals.indices[rows]), outputs[rows])

    def outputs(self, images: torch.Tensor, *, remember: bool = False, half: bool = False) -> torch.Tensor:
        """Return raw outputs, N×K, in batches that suit the target; equal images of a batch are sent once.

        Args:
            images: N×C×H×W, at least one.
            remember: Whether to remember the outputs for later queries with the same images.
            half: Whether to query the target in bf16, if `half` is available.
        """
        target = (self.half if half else None) or self.target
        return torch.cat([self._batch(part, target, remember) for part in torch.split(images, target.batch_size)])

    def posteriors(self, images: torch.Tensor, *, half: bool = False) -> torch.Tensor:
        """Return posteriors, N×K; see `outputs`.

        Raises:
            AccessDenied: If the target returns labels only.
        """
        return heads.to_posteriors(self.outputs(images, half=half), self.target.head)

    def deviations(self, images: torch.Tensor) -> NDArray[np.float64] | None:
        """Return how much bf16 changes the margins of the predicted class at most, in logits, N; None without `half`.

        Args:
            images: N×C×H×W, at least one.
        """
        if self.half is None:
            return None
        outputs = []
        for part in torch.split(images, self.target.batch_size):
            keys = compute_image_keys(part)
            outputs.append(self.half.raw_outputs(part, keys=keys))  # remembered outputs are not in bf16
            self._count(len(part), keys)
        coarse = heads.to_logits(torch.cat(outputs), self.target.head).double()
        change = coarse - heads.to_logits(self.outputs(images), self.target.head).double()
        own = change.gather(1, coarse.argmax(dim=1, keepdim=True))
        return np.asarray((change - own).abs().amax(dim=1).numpy())

    def decided(self, images: torch.Tensor, margin: float | None) -> torch.Tensor:
        """Return raw outputs, N×K, with the predictions of the target in its own precision; see `outputs`.

        Args:
            images: N×C×H×W, at least one.
            margin: Smallest lead of the predicted logit at which an output in bf16 is accepted; images below it are
                queried again in the target's own precision. None uses that precision for all images.
        """
        if margin is None:
            return self.outputs(images)
        outputs = self.outputs(images, half=True)
        largest = heads.to_logits(outputs, self.target.head).topk(2, dim=1).values
        doubtful = torch.nonzero(largest[:, 0] - largest[:, 1] <= margin).flatten()
        if len(doubtful):
            outputs[doubtful] = self.outputs(images[doubtful])
        return outputs

    def outputs_of(self, changed: Target, images: torch.Tensor) -> torch.Tensor:
        """Return raw outputs, N×K, of a changed version of the target, whose queries count as those of the target.

        Args:
            changed: Another network with the classes of the target.
            images: N×C×H×W, at least one.
        """
        outputs = []
        for part in torch.split(images, self.target.batch_size):
            keys = compute_image_keys(part)
            outputs.append(changed.raw_outputs(part, keys=keys))  # remembered outputs are those of the target
            self._count(len(part), keys)
        return torch.cat(outputs)

    def embeddings(self, images: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the classifier layer, N×D.

        Raises:
            AccessDenied: Under black-box access.
        """
        embeddings = []
        for part in torch.split(images, self.target.batch_size):
            embeddings.append(self.target.embeddings(part))
            self._count(len(part), compute_image_keys(part))
        return torch.cat(embeddings)

    def _batch(self, images: torch.Tensor, target: Target, remember: bool = False) -> torch.Tensor:
        keys = compute_image_keys(images)
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        wanted = sorted(at for key, at in first.items() if key not in self._known)
        outputs = {}
        if wanted:
            new = [keys[at] for at in wanted]
            chosen = images if len(wanted) == len(images) else images[torch.tensor(wanted)]
            rows = target.raw_outputs(chosen, keys=new)
            self._count(len(new), new)
            if len(wanted) == len(images):
                if remember:
                    self._known.update(zip(new, rows, strict=True))
                return rows
            outputs = dict(zip(new, rows, strict=True))
            if remember:
                self._known.update(outputs)
        return torch.stack([outputs[key] if key in outputs else self._known[key] for key in keys])

    def _count(self, count: int, keys: Sequence[bytes]) -> None:
        self.sent += count
        self._recent.extend(keys)
        self._keys.update(keys)

    def query_count(self) -> Queries:
        """Return the query count so far, without images whose outputs were known."""
        return Queries(total=self.sent, unique=len(self._keys))

    def piece(self, path: Path | None, compute: Callable[[], Arrays]) -> Arrays:
        """Load arrays from their file if an earlier run completed them; else compute and store them.

        The queries of the earlier run are counted as well.

        Args:
            path: Path of the file; None stores nothing.
            compute: Computes the arrays with queries of this client.
        """
        held = None if path is None else _read(path)
        if held is not None:
            keys = held.pop("asked keys")
            self._count(int(held.pop("asked total")), [row.tobytes() for row in keys])
            return held
        before, self._recent = self.sent, []
        arrays = compute()
        if path is not None:
            keys = np.frombuffer(b"".join(dict.fromkeys(self._recent)), np.uint8).reshape(-1, _KEY_BYTES)
            _write(path, {**arrays, "asked keys": keys, "asked total": np.asarray(self.sent - before)})
        return arrays


def bound_margin(errors: np.ndarray) -> float:
    """Bound the difference between two precisions: mean plus six deviations, and at least twice the largest one seen.

    Args:
        errors: Observed differences, n.
    """
    deviation = float(errors.std(ddof=1)) if len(errors) > 1 else 0.0
    return max(abs(float(errors.mean())) + 6 * deviation, 2 * float(np.abs(errors).max()))


def find_pieces_folder(
    target: Target,
    data: TrialData,
    context: Context,
    method: str,
    configuration: Mapping[str, Any],
    records: Mapping[str, NDArray[np.int64]],
) -> Path | None:
    """Return the folder of the pieces, named by a digest of everything that determines them; None without a cache.

    Args:
        target: The target.
        data: Data of the trial.
        context: Seed and cache.
        method: Name of the detector.
        configuration: Its fields.
        records: Named sets of records that are used.
    """
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
    return context.cache / "screenings" / hash_stably(key)


def concatenate_pieces(pieces: list[Arrays]) -> Arrays:
    """Concatenate the arrays of pieces."""
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_with_digest(path, buffer.getvalue())


def _read(path: Path) -> Arrays | None:
    """Return the arrays of a piece, or None if it is absent, damaged, or of a version that wrote no digest."""
    try:
        payload = read_with_digest(path)
    except FileNotFoundError:
        return None
    if payload is None:
        logger.warning("A stored piece is damaged or of an old version, and is computed again: %s", path.name)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
