"""Several models of the store trained side by side: shared images, and on a CPU one model a thread.

torch divides every operation among the cores and waits for the slowest after each. Where several models are wanted,
one model a thread needs no waiting, and a core that another program takes slows one of them down instead of all.
``vmap`` over the weights of convolutional networks was slower than one model after the other on a CPU; see
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
from securitynet.models.store.cached_model import ModelSpec, StoredModel, TrainingRun, check_images, fresh_network
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.threads import thread_pool
from securitynet.models.training.batches import RESIDENT_BYTES
from securitynet.randomness import isolated

LANE_BYTES = 4 << 30
"""Main memory that models which are trained side by side may take, as far as can be told before."""


class _Stopped(Exception):
    """Another lane failed, or the user wants to stop."""


def obtain_models(
    specs: Sequence[ModelSpec],
    *,
    kind: str,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    lanes: int | None = None,
) -> list[StoredModel]:
    """The models of several specs of one dataset, in their order; see `obtain_model`.

    Images that have to be decoded are decoded once for all specs. On a CPU, models that draw no random numbers while
    they are trained (no dropout) are trained side by side, each on one thread: then each has the weights that it would
    have if it were trained alone on one thread.

    Args:
        specs: What is wanted, all of one dataset.
        kind: See `obtain_model`.
        cache: Folder of the store; None keeps nothing.
        device: Where to train. On a GPU models are trained one after the other.
        progress: Called with (epochs done, epochs in all) over all specs.
        lanes: How many models are trained side by side; by default as many as torch has threads, as far as memory
            allows.

    Raises:
        SecurityNetError: See `obtain_model`. The other models' training stops after its current epoch, and goes on from
            there another time.
    """
    for spec in specs:
        check_images(spec.dataset)
    fetched = _shared_images(specs)
    total = sum(spec.recipe.epochs for spec in specs)
    done = [0] * len(specs)
    lock, stop = threading.Lock(), threading.Event()

    count = side_by_side(specs, device) if lanes is None else min(lanes, len(specs))

    def begin(number: int) -> TrainingRun:
        images = fetched[number] if fetched else None
        return TrainingRun(specs[number], kind=kind, cache=cache, device=device, images=images)

    def train(number: int, run: TrainingRun) -> None:
        def tell(epochs: int) -> None:
            if stop.is_set():
                raise _Stopped
            with lock:
                done[number] = epochs
                if progress:
                    progress(sum(done), total)

        run.train(tell)
        tell(specs[number].recipe.epochs)

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
    with isolated():  # threads share torch's global random state: it is given back once, when all are done
        pool = thread_pool(count)
        futures = [pool.submit(train, number, runs[number]) for number in order]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            stop.set()
            for future in futures:
                if not future.cancel():
                    future.exception()  # waits
            raise _cause(error, futures) from None
    return [run.finished() for run in runs]


def side_by_side(specs: Sequence[ModelSpec], device: str) -> int:
    """How many of these specs are trained side by side: 1 where it would not be faster, safe or small enough."""
    if len(specs) < 2 or resolve_device(device).type != "cpu":
        return 1
    most = max(1, LANE_BYTES // max(_memory(spec) for spec in specs))
    count = min(torch.get_num_threads(), len(specs), most)
    if count < 2 or any(spec.defense is not None for spec in specs):  # defenses may draw and build as they please
        return 1
    if any(_draws(spec) for spec in {spec.architecture: spec for spec in specs}.values()):
        return 1
    return count


def _cause(error: BaseException, futures: Sequence[Future[None]]) -> BaseException:
    """What went wrong, and not that others were stopped because of it."""
    if not isinstance(error, _Stopped):
        return error
    errors = [future.exception() for future in futures if not future.cancelled()]
    return next((found for found in errors if found is not None and not isinstance(found, _Stopped)), error)


def _draws(spec: ModelSpec) -> bool:
    """Whether a network draws from torch's global random state when it is trained, as dropout does."""
    network = fresh_network(spec).train()
    channels, size, _ = spec.dataset.image_shape
    side = spec.input_size or size
    with isolated(), torch.no_grad():
        before = torch.random.get_rng_state()
        network(torch.zeros(2, channels, side, side))
        return not torch.equal(before, torch.random.get_rng_state())


def _memory(spec: ModelSpec) -> int:
    """Bytes that training takes: weights, gradients, momentum, and the activations of a batch with their gradients."""
    network = fresh_network(spec)
    channels, size, _ = spec.dataset.image_shape
    side = spec.input_size or size
    numbers = 0

    def count(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        nonlocal numbers
        if isinstance(output, torch.Tensor):
            numbers += output.numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if not list(layer.children())]
    with isolated(), torch.no_grad():
        network.eval()(torch.zeros(1, channels, side, side))
    for hook in hooks:
        hook.remove()
    weights = sum(parameter.numel() for parameter in network.parameters())
    return 4 * (3 * weights + 2 * numbers * min(spec.recipe.batch_size, len(spec.indices)))


def _shared_images(specs: Sequence[ModelSpec]) -> list[tuple[Images, NDArray[np.int64]]] | None:
    """Images that have to be decoded, decoded once for all specs, with the positions of each spec's records among them.

    Records are in the order of the largest spec, so that positions are the same for a spec whichever others there are
    where smaller specs are the first records of larger ones. None if there is nothing to share, or too little memory.
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
