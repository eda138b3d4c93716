"""The loop that all inversion attacks run: many images or codes optimised at once, resumable at any step."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.attacks.inversion._subject import Subject
from securitynet.datasets.locks import exclusive
from securitynet.devices import deterministic_kernels
from securitynet.files import stable_hash
from securitynet.methods.context import Context
from securitynet.models.training.checkpoints import CheckpointFile, State

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]

_VERSION = 1


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search ends with.

    Attributes:
        images: N×C×H×W float32 in [0, 1] on the CPU.
        iterations: Spent on each, N.
    """

    images: torch.Tensor
    iterations: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Search:
    """An optimisation, ready to start or to go on.

    Attributes:
        identity: JSON values that decide its result; its checkpoint is kept under their digest.
        start: Makes all that changes from step to step, as tensors by name.
        advance: Does the step of the given number on them in place; False if there is nothing left to do.
        steps: At most.
        finish: Makes the images of them.
    """

    identity: dict[str, object]
    start: Callable[[], Tensors]
    advance: Callable[[Tensors, int], bool]
    steps: int
    finish: Callable[[Tensors], SearchResult]

    @contextlib.contextmanager
    def carried_out(self, context: Context) -> Iterator[SearchResult]:
        """Run it, or what a killed run has left of it. The checkpoint is removed when the block ends well.

        Killed in it, the search is not repeated.
        """
        key = stable_hash({"version": _VERSION, **self.identity})
        folder = None if context.cache is None else context.cache / "inversion" / key
        with contextlib.nullcontext() if folder is None else exclusive(folder / "lock"):
            file = None if folder is None else CheckpointFile(folder / "checkpoint", logger.info)
            yield self.finish(self._run(file, key, context))
            if file is not None:
                file.remove()

    def _run(self, file: CheckpointFile | None, key: str, context: Context) -> Tensors:
        done, more = 0, True
        saved = file.read(key) if file else None
        if saved is None:
            tensors = self.start()
        else:
            # Tensors know no device here: those of the start say where each belongs.
            tensors = {name: saved.module[name].to(value.device) for name, value in self.start().items()}
            done, more = saved.epochs_done, bool(saved.optimizer["more"])
            logger.info("Resumed after step %d of %d.", done, self.steps)
        place = next(iter(tensors.values())).device
        with torch.inference_mode(False), deterministic_kernels(place):
            while more and done < self.steps:
                more = self.advance(tensors, done)
                done += 1
                if file and (not more or done == self.steps or file.due()):
                    file.write(State(key, done, dict(tensors), {"more": more}, ""))
                if context.progress:
                    context.progress(done if more else self.steps, self.steps)
        return tensors


def identity(subject: Subject, name: str, configuration: dict[str, object], seed: int) -> dict[str, object]:
    """What decides the search of an attack besides the models that it trains."""
    return {
        "attack": name,
        "configuration": configuration,
        "target": subject.target.identity.model_dump(mode="json"),
        "precision": subject.target.precision,
        "shape": list(subject.shape),
        "labels": list(subject.labels),
        "seed": seed,
    }


def gradients(
    cost: Callable[[torch.Tensor, slice], tuple[torch.Tensor, ...]], values: torch.Tensor, part: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Gradient of each row's own cost, and what the cost function says of each row.

    Args:
        cost: Takes rows and their positions; its first result is their costs, one each; others are kept too.
        values: N×….
        part: Rows at once.

    Returns:
        The gradient, as ``values``; all results of ``cost``, detached.
    """
    found, told = [], []
    with torch.enable_grad():
        for first in range(0, max(1, len(values)), part):
            positions = slice(first, first + part)  # a view: on small images, copies take longer than they do
            leaf = values[positions].detach().requires_grad_()
            results = cost(leaf, positions)
            # The sum, not the mean: no row's step may depend on how many others there are.
            (gradient,) = torch.autograd.grad(results[0].sum(), leaf)
            found.append(gradient)
            told.append(tuple(result.detach() for result in results))
    if len(found) == 1:
        return found[0], told[0]
    return torch.cat(found), tuple(torch.cat(column) for column in zip(*told, strict=True))


def adam(
    values: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    step: int,
    rate: float,
    betas: tuple[float, float],
) -> torch.Tensor:
    """The values after one step of Adam (Kingma and Ba, 2015, algorithm 1); the moments are changed in place."""
    mean, square = moments
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    spread = (square / (1 - betas[1] ** (step + 1))).sqrt_().add_(1e-8)
    return values - rate / (1 - betas[0] ** (step + 1)) * mean / spread
