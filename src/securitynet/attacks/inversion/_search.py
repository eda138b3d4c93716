"""The optimisation loop of inversion attacks: many images or latent vectors at once, resumable at any step."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.datasets.locks import hold_file_lock
from securitynet.devices import use_deterministic_kernels
from securitynet.files import hash_stably
from securitynet.methods.context import Context
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]

_VERSION = 1


@dataclass(frozen=True, eq=False)
class InversionResult:
    """The result of a search.

    Attributes:
        images: N×C×H×W float32 in [0, 1] on the CPU.
        iterations: Number of iterations spent on each image, N.
        notes: Notes for the reader of the results.
    """

    images: torch.Tensor
    iterations: NDArray[np.int64]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class InversionSearch:
    """An optimisation that is ready to start or to resume.

    Attributes:
        identity: JSON values that determine the result; their digest names the checkpoint.
        start: Creates the state, named tensors.
        advance: Performs the step of the given number on the state in place; returns False if nothing is left to do.
        steps: Largest number of steps.
        finish: Creates the images from the state.
        restore: Moves the tensors of a checkpoint to their devices; by default, each to the device of its counterpart
            in a new initial state.
    """

    identity: dict[str, object]
    start: Callable[[], Tensors]
    advance: Callable[[Tensors, int], bool]
    steps: int
    finish: Callable[[Tensors], InversionResult]
    restore: Callable[[Tensors], Tensors] | None = None

    @contextlib.contextmanager
    def carried_out(self, context: Context) -> Iterator[InversionResult]:
        """Run the search, or resume an interrupted one, and yield its result.

        The checkpoint is removed when the block ends without an error, so an interruption inside the block does not
        repeat the search.
        """
        key = hash_stably({"version": _VERSION, **self.identity})
        folder = None if context.cache is None else context.cache / "inversion" / key
        with contextlib.nullcontext() if folder is None else hold_file_lock(folder / "lock"):
            file = None if folder is None else CheckpointFile(folder / "checkpoint", logger.info)
            yield self.finish(self._run(file, key, context))
            if file is not None:
                file.remove()

    def _restored(self, saved: Tensors) -> Tensors:
        return {name: saved[name].to(value.device) for name, value in self.start().items()}

    def _run(self, file: CheckpointFile | None, key: str, context: Context) -> Tensors:
        done, more = 0, True
        saved = file.read(key) if file else None
        if saved is None:
            tensors = self.start()
        else:
            # The file does not record devices.
            tensors = self.restore(dict(saved.module)) if self.restore else self._restored(saved.module)
            done, more = saved.epochs_done, bool(saved.optimizer["more"])
            logger.info("Resumed after step %d of %d.", done, self.steps)
        place = next(iter(tensors.values())).device
        with torch.inference_mode(False), use_deterministic_kernels(place):
            while more and done < self.steps:
                more = self.advance(tensors, done)
                done += 1
                if file and (not more or done == self.steps or file.due()):
                    file.write(TrainingState(key, done, dict(tensors), {"more": more}, ""))
                if context.progress:
                    context.progress(done if more else self.steps, self.steps)
        return tensors


def identify_search(
    attacked: AttackedClasses, name: str, configuration: dict[str, object], seed: int
) -> dict[str, object]:
    """Return what determines the search of an attack, besides the models that it trains.

    Args:
        attacked: The target and the requested classes.
        name: Name of the attack.
        configuration: Its fields.
        seed: Seed of the run.
    """
    return {
        "attack": name,
        "configuration": configuration,
        "target": attacked.target.identity.model_dump(mode="json"),
        "precision": attacked.target.precision,
        "shape": list(attacked.shape),
        "labels": list(attacked.labels),
        "seed": seed,
    }


def compute_gradients(
    cost: Callable[[torch.Tensor, slice], tuple[torch.Tensor, ...]], values: torch.Tensor, part: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Compute the gradient of each row's own cost, and the results of the cost function.

    Args:
        cost: Takes rows and their positions; its first result is one cost per row, and further results are returned.
        values: N×….
        part: Number of rows per batch.

    Returns:
        The gradient, in the shape of ``values``, and all results of ``cost``, detached.
    """
    parts, signals = [], []
    with torch.enable_grad():
        for first in range(0, max(1, len(values)), part):
            positions = slice(
                first, first + part
            )  # a slice is a view; for small images, copying would dominate the time
            leaf = values[positions].detach().requires_grad_()
            results = cost(leaf, positions)
            # The sum, not the mean, so that the step of a row does not depend on the number of rows.
            (gradient,) = torch.autograd.grad(results[0].sum(), leaf)
            parts.append(gradient)
            signals.append(tuple(result.detach() for result in results))
    if len(parts) == 1:
        return parts[0], signals[0]
    return torch.cat(parts), tuple(torch.cat(column) for column in zip(*signals, strict=True))


def step_adam(
    values: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    step: int,
    rate: float,
    betas: tuple[float, float],
) -> torch.Tensor:
    """Return the values after one step of Adam (Kingma and Ba, 2015, algorithm 1), and update the moments in place.

    Args:
        values: Parameters, N×….
        gradient: Their gradient.
        moments: First and second moments, in the same shape.
        step: Number of the step, from 0.
        rate: Learning rate.
        betas: Decay rates of the two moments.
    """
    mean, square = moments
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    spread = (square / (1 - betas[1] ** (step + 1))).sqrt_().add_(1e-8)
    return values - rate / (1 - betas[0] ** (step + 1)) * mean / spread
