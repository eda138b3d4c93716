"""Trains several models of the store in parallel: they share images, and on a CPU each model has one thread.

torch splits every operation across the cores and then waits for the slowest one. With one model per thread there is no
such waiting, and a core that is busy with another program slows down one model instead of all of them. On a CPU,
``vmap`` over the weights of convolutional networks was slower than training the models in turn; see
``benchmarks/stealing_together.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import Images
from securitynet.devices import resolve_device
from securitynet.models.store.cached_model import ModelSpec, StoredModel, TrainingRun, build_fresh_network, check_images
from securitynet.models.store.training_cost import estimate_training_memory
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.threads import share_thread_pool
from securitynet.models.training.batches import RESIDENT_BYTES
from securitynet.randomness import isolate_random_state

PARALLEL_BYTES = 4 << 30
"""Main memory that models trained in parallel may use, by the estimate made beforehand: 4 GiB."""


class _Stopped(Exception):
    """Another training failed, or the user interrupted the run."""


def obtain_models(
    specs: Sequence[ModelSpec],
    *,
    kind: str,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    threads: int | None = None,
) -> list[StoredModel]:
    """Obtain the models of several specs of one dataset, in the order of the specs; see `obtain_model`.

    Images that need decoding are decoded once for all specs. On a CPU, models whose training draws no random numbers
    (no dropout) are trained in parallel, each on one thread. Each then has the same weights as if it had been trained
    alone on one thread.

    Args:
        specs: The models to obtain, all of one dataset.
        kind: Name of their folder in the store, in the plural.
        cache: Folder of the store; None stores nothing.
        device: Where to train. On a GPU, models are trained one after another.
        progress: Called with (epochs done, epochs in all) over all specs.
        threads: How many models to train in parallel; by default as many as torch has threads and memory allows.

    Raises:
        SecurityNetError: If a model cannot be trained, as for `obtain_model`. The training of the other models stops
            after its current epoch and resumes from there in the next run.
    """
    for spec in specs:
        check_images(spec.dataset)
    fetched = _shared_images(specs)
    total = sum(spec.recipe.epochs for spec in specs)
    done = [0] * len(specs)
    lock, stop = threading.Lock(), threading.Event()

    count = choose_thread_count(specs, device) if threads is None else min(threads, len(specs))

    def begin(number: int) -> TrainingRun:
        images = fetched[number] if fetched else None
        return TrainingRun(specs[number], kind=kind, cache=cache, device=device, images=images)

    def train(number: int, run: TrainingRun) -> None:
        def report_progress(epochs: int) -> None:
            if stop.is_set():
                raise _Stopped
            with lock:
                done[number] = epochs
                if progress:
                    progress(sum(done), total)

        run.train(report_progress)
        report_progress(specs[number].recipe.epochs)

    if count < 2:
        models = []
        for number in range(len(specs)):
            run = begin(number)
            train(number, run)
            models.append(run.finished())
        return models
    runs = [begin(number) for number in range(len(specs))]
    # Large specs first: starting with the small ones would leave a core idle at the end.
    order = sorted(range(len(specs)), key=lambda number: -len(specs[number].indices) * specs[number].recipe.epochs)
    with isolate_random_state():  # threads share torch's global random state, so it is restored once, after all of them
        pool = share_thread_pool(count)
        futures = [pool.submit(train, number, runs[number]) for number in order]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            stop.set()
            for future in futures:
                if not future.cancel():
                    future.exception()  # waits for it to end
            raise _cause(error, futures) from None
    return [run.finished() for run in runs]


def choose_thread_count(specs: Sequence[ModelSpec], device: str) -> int:
    """Number of models to train in parallel: 1 if parallel training would be slower, unsafe or too large for memory.

    Args:
        specs: The models to train.
        device: Where to train, as for `obtain_model`.
    """
    if len(specs) < 2 or resolve_device(device).type != "cpu":
        return 1
    most = max(1, PARALLEL_BYTES // max(estimate_training_memory(spec) for spec in specs))
    count = min(torch.get_num_threads(), len(specs), most)
    if count < 2 or any(spec.defense is not None for spec in specs):  # a defense may draw numbers or build networks
        return 1
    if any(_draws_random_numbers(spec) for spec in {spec.architecture: spec for spec in specs}.values()):
        return 1
    return count


def _cause(error: BaseException, futures: Sequence[Future[None]]) -> BaseException:
    """The original error, not the `_Stopped` of the trainings that were stopped because of it."""
    if not isinstance(error, _Stopped):
        return error
    errors = [future.exception() for future in futures if not future.cancelled()]
    return next((other for other in errors if other is not None and not isinstance(other, _Stopped)), error)


def _draws_random_numbers(spec: ModelSpec) -> bool:
    """Whether training a network draws from torch's global random state, as dropout does."""
    network = build_fresh_network(spec).train()
    with isolate_random_state(), torch.no_grad():
        before = torch.random.get_rng_state()
        network(torch.zeros(2, spec.dataset.image_shape[0], *spec.sides))
        return not torch.equal(before, torch.random.get_rng_state())


def _shared_images(specs: Sequence[ModelSpec]) -> list[tuple[Images, NDArray[np.int64]]] | None:
    """Images that need decoding, decoded once for all specs, and the positions of each spec's records among them.

    Records are in the order of the largest spec. If smaller specs are prefixes of larger ones, the positions of a spec
    therefore do not depend on the other specs. None if there is nothing to share, or too little memory.
    """
    images = specs[0].dataset.images
    if images is None or isinstance(images, torch.Tensor) or any(s.dataset is not specs[0].dataset for s in specs):
        return None
    largest_first = sorted(specs, key=lambda spec: -len(spec.indices))
    records = np.concatenate([spec.indices for spec in largest_first])
    _, first = np.unique(records, return_index=True)
    records = records[np.sort(first)]
    if len(records) * int(np.prod(images.shape[1:])) > RESIDENT_BYTES:
        return None
    pieces = [images[torch.from_numpy(records[start : start + 1024])] for start in range(0, len(records), 1024)]
    decoded = torch.cat(pieces)
    order = np.argsort(records)
    return [(decoded, order[np.searchsorted(records, spec.indices, sorter=order)].astype(np.int64)) for spec in specs]
