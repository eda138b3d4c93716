"""`Signals`: the outputs of a target for a dataset, cached on disk so that each record is queried only once.

`Embeddings` are cached in the same way. The cache holds raw outputs, or embeddings, in blocks of consecutive records. A
block is one file: a digest, then an ``.npz`` with the records it holds and their rows. It is written atomically, so an
interrupted run resumes where it stopped; a block whose digest does not match is computed again.
"""

from __future__ import annotations

import atexit
import functools
import io
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import unite
from securitynet.errors import TargetError
from securitynet.files import hash_stably, read_with_digest, write_with_digest
from securitynet.models.targets import heads
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.backends.restricted import InterfaceBackend
from securitynet.models.targets.heads import Head
from securitynet.models.targets.query_count import compute_image_keys
from securitynet.models.targets.target import Target
from securitynet.records import Access, Queries

logger = logging.getLogger(__name__)

BLOCK = 4096
"""Records in a block of the cache."""

SAVE_SECONDS = 10.0
"""A block is written when it is complete, and at least this often while a slow target is queried."""

_VERSION = 1
_BY_TRACING = "found by tracing, version 1"

Progress = Callable[[int, int], None]
"""Called with (records done, records in all) while a target is being queried."""


Query = Callable[[torch.Tensor, list[bytes]], torch.Tensor]
"""From images and their keys to one row for each."""


@dataclass(frozen=True, eq=False)
class Signals:
    """Outputs of a target for some records of a dataset, in the order of ``indices``.

    Attributes:
        indices: Records, N int64.
        outputs: Raw outputs, N×K float32.
        labels: True classes, N int64.
        head: What the outputs are.
        queries: Query count of these outputs: all images, and distinct ones.
        sent: Images that were sent now; the rest came from the cache.
    """

    indices: NDArray[np.int64]
    outputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    head: Head
    queries: Queries
    sent: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """Logits up to a constant per row, N×K."""
        return heads.to_logits(torch.from_numpy(self.outputs), self.head).numpy()

    @cached_property
    def posteriors(self) -> NDArray[np.float32]:
        """Posteriors, N×K, rows summing to 1."""
        return heads.to_posteriors(torch.from_numpy(self.outputs), self.head).numpy()

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """Predicted classes, N."""
        return np.asarray(self.outputs.argmax(axis=1), dtype=np.int64)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the prediction is the label, N."""
        return np.asarray(self.predictions == self.labels)

    def select(self, indices: NDArray[np.int64]) -> Signals:
        """The signals of some of these records. The query count stays that of the whole pass.

        Raises:
            KeyError: If a record is not among them.
        """
        if np.array_equal(self.indices, indices):
            return self  # without a copy: the outputs of many records and classes take hundreds of megabytes
        order = np.argsort(self.indices)
        at = order[np.searchsorted(self.indices, indices, sorter=order).clip(max=len(order) - 1)]
        if not np.array_equal(self.indices[at], indices):
            raise KeyError("signals were not collected for all of these records")
        return Signals(indices, self.outputs[at], self.labels[at], self.head, self.queries, self.sent)


def collect_signals(
    target: Target,
    dataset: ImageDataset,
    indices: NDArray[np.int64] | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    same_classes: bool = True,
) -> Signals:
    """Query a target for records of a dataset, each at most once ever.

    Args:
        target: Black-box access is enough. Behind an interface, the outputs are computed from the cached signals of the
            target itself.
        dataset: Where the images are.
        indices: Which records; all by default.
        cache: Folder for signals of all targets; None queries without caching.
        progress: Called with (records done, total records).
        same_classes: Whether the dataset's classes are the target's; False for images of another kind, whose labels
            have no meaning for the target.

    Raises:
        TargetError: If the images do not suit the model, the outputs are not finite, or the model has another number
            of classes than the dataset.
        QueryBudgetExceeded: If a cap would be overrun; outputs received so far are cached.
    """
    indices = np.arange(len(dataset), dtype=np.int64) if indices is None else indices
    if len(indices) == 0:
        raise TargetError("No records to query were chosen.")
    if isinstance(target.backend, InterfaceBackend):
        plain = target.without_interface()
        signals = collect_signals(plain, dataset, indices, cache=cache, progress=progress, same_classes=same_classes)
        outputs = target.backend.seen(torch.from_numpy(signals.outputs)).numpy()
        return replace(signals, outputs=outputs, head=target.head)
    if isinstance(target.backend, RecordedBackend):
        rows = target.backend.rows(indices, dataset)
        check_class_count(target, rows.shape[1], dataset if same_classes else None)
        cost = Queries(total=len(indices), unique=len(unite(indices)))
        return Signals(indices, rows, dataset.labels[indices], target.head, cost)
    classes = dataset if same_classes else None

    def query(images: torch.Tensor, keys: list[bytes]) -> torch.Tensor:
        outputs = target.raw_outputs(images, keys=keys)
        check_class_count(target, outputs.shape[1], classes)
        return outputs

    folder = _folder(cache, target, make_cache_key(target, dataset))
    rows, queries, sent = _gather(query, dataset, indices, target.batch_size, folder, progress)
    check_class_count(target, rows.shape[1], classes)
    target.backend.num_classes = rows.shape[1]
    return Signals(indices, rows, dataset.labels[indices], target.head, queries, sent)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of some records of a dataset, in the order of ``indices``.

    Attributes:
        indices: Records, N int64.
        values: N×D float32.
        queries: Their query count: all images, and distinct ones.
        sent: Images that were sent now; the rest came from the cache.
    """

    indices: NDArray[np.int64]
    values: NDArray[np.float32]
    queries: Queries
    sent: int = 0

    def __len__(self) -> int:
        return len(self.indices)


def collect_embeddings(
    target: Target,
    dataset: ImageDataset,
    indices: NDArray[np.int64] | None = None,
    *,
    layer: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Embeddings:
    """Embeddings of a target for records of a dataset, each computed at most once; compare `collect_signals`.

    Args:
        target: Under white-box access.
        dataset: Where the images are; its classes need not be the target's.
        indices: Which records; all by default.
        layer: Name of the layer to take; see `securitynet.models.targets.embeddings.choose_extractor`. By
            default what the final classifier receives.
        cache: Folder for signals of all targets; None keeps nothing.
        progress: Called with (records done, total records).

    Raises:
        AccessDenied: Under black-box access, or if only recorded outputs are available.
        ModelError: If there is no such layer, or the layer cannot be located.
        TargetError: If the images do not suit the model, or an embedding is not finite.
        QueryBudgetExceeded: If a cap would be overrun; what was computed is cached.
    """
    target.require(Access.WHITE_BOX, "embeddings")
    indices = np.arange(len(dataset), dtype=np.int64) if indices is None else indices
    if len(indices) == 0:
        raise TargetError("No records to query were chosen.")

    def query(images: torch.Tensor, keys: list[bytes]) -> torch.Tensor:
        return target.embeddings(images, layer=layer, keys=keys)

    folder = _folder(cache, target, make_cache_key(target, dataset, embeddings=layer or _BY_TRACING))
    rows, queries, sent = _gather(query, dataset, indices, target.batch_size, folder, progress)
    return Embeddings(indices, rows, queries, sent)


def _gather(
    query: Query,
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    batch_size: int,
    folder: Path | None,
    progress: Progress | None,
) -> tuple[NDArray[np.float32], Queries, int]:
    """Rows for records, from cached blocks where possible; the query count; and the number of images sent now."""
    wanted = unite(indices)
    outputs: NDArray[np.float32] | None = None
    keys = np.empty(len(wanted), dtype="V16")
    sent = done = 0
    for number in np.unique(wanted // BLOCK):
        records = wanted[wanted // BLOCK == number]
        block = _read_block(folder, int(number))
        missing = records if block is None else np.setdiff1d(records, block.indices, assume_unique=True)
        if len(missing):
            for fresh in _query(query, dataset, missing, batch_size, _offset(progress, done, len(wanted))):
                sent += len(fresh.indices)
                block = fresh if block is None else block.joined(fresh)
                _write_block(folder, int(number), block)
        assert block is not None  # held or just queried
        piece = block.select(records)
        if outputs is None:
            # Filled block by block: pieces that are joined at the end would be in memory twice.
            outputs = np.empty((len(wanted), *piece.outputs.shape[1:]), dtype=piece.outputs.dtype)
        outputs[done : done + len(records)] = piece.outputs
        keys[done : done + len(records)] = piece.keys
        done += len(records)
        if progress:
            progress(done, len(wanted))
    assert outputs is not None  # at least one record
    queries = Queries(total=len(wanted), unique=len(set(keys.tolist())))
    ordered = np.array_equal(wanted, indices)
    return outputs if ordered else outputs[np.searchsorted(wanted, indices)], queries, sent


@functools.cache
def _folder_of_process() -> Path:
    """A folder for outputs that no other process can use; it is deleted when this one ends."""
    folder = tempfile.mkdtemp(prefix="securitynet-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _folder(cache: Path | None, target: Target, key: str) -> Path | None:
    """Return the folder of the signals with a key."""
    if cache is None:
        return None
    return (_folder_of_process() if target.backend.within_process else cache) / "signals" / key


def make_cache_key(target: Target, dataset: ImageDataset, *, embeddings: str | None = None) -> str:
    """Digest of everything that determines the outputs, or the embeddings of a layer.

    The head is left out: raw outputs are stored, so their interpretation can be corrected without new queries.

    Args:
        target: The target: its checksum, preprocessing and precision are part of the key.
        dataset: The dataset, by its fingerprint.
        embeddings: Name of the layer, for embeddings; None for outputs.
    """
    identity = {
        "version": _VERSION,
        "checksum": target.backend.checksum,
        "preprocessing": target.preprocessing.canonical(),
        "precision": target.precision,
        "dataset": dataset.fingerprint,
    }
    return hash_stably(identity if embeddings is None else {**identity, "embeddings": embeddings})


def check_class_count(target: Target, outputs: int, dataset: ImageDataset | None) -> None:
    """Raise `TargetError` unless the model has at least two classes and as many as the dataset, if one is given.

    Args:
        target: The target, for messages.
        outputs: Number of scores per image.
        dataset: The dataset whose classes must match; None to skip that check.
    """
    if outputs < 2:
        raise TargetError(
            f"{target.reference} returns {outputs} number per image; a classifier has a score "
            "for each of two classes or more."
        )
    if dataset is not None and outputs != dataset.num_classes:
        raise TargetError(
            f"{target.reference} has {outputs} classes; {dataset.reference} has {dataset.num_classes}.",
            hint="Choose the dataset that the model was trained on.",
        )


@dataclass(frozen=True, eq=False)
class _Block:
    """Records of one block: their indices, raw outputs, and the keys of their images (16 bytes each)."""

    indices: NDArray[np.int64]
    outputs: NDArray[np.float32]
    keys: NDArray[np.void]

    def joined(self, other: _Block) -> _Block:
        return _Block(
            np.concatenate([self.indices, other.indices]),
            np.concatenate([self.outputs, other.outputs]),
            np.concatenate([self.keys, other.keys]),
        )

    def select(self, indices: NDArray[np.int64]) -> _Block:
        order = np.argsort(self.indices)
        at = order[np.searchsorted(self.indices, indices, sorter=order)]
        return _Block(indices, self.outputs[at], self.keys[at])


def _query(
    query: Query,
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    batch_size: int,
    progress: Callable[[int], object],
) -> Iterator[_Block]:
    """Query these records; yield the outputs so far every `SAVE_SECONDS`, so that an interruption loses little."""
    rows: list[torch.Tensor] = []
    keys: list[bytes] = []
    start = done = 0
    saved = time.monotonic()
    for chosen, images in dataset.batches(indices, batch_size):
        batch_keys = compute_image_keys(images)
        try:
            outputs = query(images, batch_keys)
        except BaseException:  # the cap, a failing server or Ctrl-C: save the outputs so far
            if rows:
                yield _Block(indices[start:done], torch.cat(rows).numpy(), _packed(keys))
            raise
        rows.append(outputs)
        keys += batch_keys
        done += len(chosen)
        progress(done)
        if done == len(indices) or time.monotonic() - saved > SAVE_SECONDS:
            yield _Block(indices[start:done], torch.cat(rows).numpy(), _packed(keys))
            rows, keys, start, saved = [], [], done, time.monotonic()


def _packed(keys: list[bytes]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(keys), dtype="V16")


def _offset(progress: Progress | None, done: int, total: int) -> Callable[[int], object]:
    return lambda count: progress(done + count, total) if progress else None


def _read_block(folder: Path | None, number: int) -> _Block | None:
    """A block of the cache, or None if it is absent or damaged."""
    if folder is None:
        return None
    path = folder / f"{number:06d}.block"
    try:
        payload = read_with_digest(path)
    except FileNotFoundError:
        return None
    if payload is None:
        logger.warning("A cached block of signals is damaged and is computed again: %s", path.name)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return _Block(arrays["indices"], arrays["outputs"], arrays["keys"].view("V16").reshape(-1))


def _write_block(folder: Path | None, number: int, block: _Block) -> None:
    if folder is None:
        return
    buffer = io.BytesIO()
    keys = block.keys.view(np.uint8).reshape(-1, 16)
    np.savez(buffer, indices=block.indices, outputs=block.outputs, keys=keys)
    write_with_digest(folder / f"{number:06d}.block", buffer.getvalue())
