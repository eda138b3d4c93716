"""How much time and memory the training of models will take, found out before the first of them is trained.

Shadow models of large networks on large images are what a user asks for most easily and waits for longest: sixteen
ResNet-50s on a few thousand images of 224×224 keep two cores busy for days.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError
from securitynet.memory import read_available_memory
from securitynet.models.store.cached_model import WEIGHTS, ModelSpec, build_fresh_network
from securitynet.models.targets.pass_time import ANNOUNCED_SECONDS, LEAST_PIXELS, describe_time, measure_pass
from securitynet.randomness import isolate_random_state

MOST_SECONDS = 30 * 86400.0
"""Training that would take longer is refused: 30 days."""

logger = logging.getLogger(__name__)


def check_training_cost(specs: Sequence[ModelSpec], *, kind: str, cache: Path | None, device: str) -> None:
    """Announce training that takes long, and refuse what would take too long or more memory than there is.

    The time is measured on a few images, so it is right to a factor of about two. Models that are in the store, and
    training that is small in any case, are left out.

    Args:
        specs: The models to train.
        kind: Name of their folder in the store, in the plural.
        cache: Folder of the store; None for none.
        device: Where they are trained.

    Raises:
        ConfigurationError: If all of them would take longer than `MOST_SECONDS`, or one does not fit into the memory.
    """
    if _count_pixels(specs) < LEAST_PIXELS:
        return
    place = resolve_device(device)
    largest = max(specs, key=lambda spec: _count_pixels([spec]))
    network = build_fresh_network(largest).to(place).train()
    each = measure_pass(network, (largest.dataset.image_shape[0], *largest.sides), place)
    del network
    # Which models are stored takes a pass over the images of each, so what is certain without it is refused first.
    folder = None if cache is None else cache / kind
    stored = 0 if folder is None else len(list(folder.glob(f"*/{WEIGHTS}")))
    by_size = sorted(specs, key=lambda spec: _count_images([spec]), reverse=True)
    _judge(by_size[stored:], each, kind, announce=False)
    pending = [spec for spec in specs if not (folder and stored and (folder / spec.record.key / WEIGHTS).exists())]
    if not pending:
        return
    _judge(pending, each, kind)
    # The estimate has gradients of all activations; they are freed on the way back, so half of it is certain.
    needed, free = estimate_training_memory(largest) // 2, read_available_memory()
    if place.type == "cpu" and free is not None and needed > free:
        raise ConfigurationError(
            f"Training {_describe(pending, kind)} takes {needed / 1e9:.0f} GB of memory or more with batches of "
            f"{largest.recipe.batch_size}; {free / 1e9:.0f} GB are free.",
            hint="Train with smaller batches (batch_size in the recipe), a smaller network (--architecture), or on "
            "smaller images (--image-size).",
        )


def _judge(specs: Sequence[ModelSpec], each: float, kind: str, *, announce: bool = True) -> None:
    """Refuse or announce training that takes so many seconds an image."""
    seconds = each * _count_images(specs)
    hint = "Train fewer models for fewer epochs, a smaller network (--architecture), on smaller images or on a GPU"
    hint += ", or compare with models that exist (--reference-models)." if kind == "shadows" else "."
    if seconds > MOST_SECONDS:
        what = _describe(specs, kind)
        raise ConfigurationError(f"Training {what} would take about {describe_time(seconds)} here.", hint=hint)
    if announce and seconds > ANNOUNCED_SECONDS:
        logger.warning("Training %s will take about %s here. %s", _describe(specs, kind), describe_time(seconds), hint)


def _describe(specs: Sequence[ModelSpec], kind: str) -> str:
    spec, count = specs[0], len(specs)
    models = f"{count} {kind.removesuffix('s')} model{'' if count == 1 else 's'}"
    images = f"{len(spec.indices):,} images of {spec.sides[0]}×{spec.sides[1]}"
    return f"{models} ({spec.built.name}, {images}, {spec.recipe.epochs} epochs)"


def estimate_training_memory(spec: ModelSpec) -> int:
    """Bytes that a training needs: weights, gradients, momentum, and a batch's activations with their gradients.

    Args:
        spec: The model.
    """
    network = build_fresh_network(spec)
    numbers = 0

    def count(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        nonlocal numbers
        if isinstance(output, torch.Tensor):
            numbers += output.numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if not list(layer.children())]
    with isolate_random_state(), torch.no_grad():
        network.eval()(torch.zeros(1, spec.dataset.image_shape[0], *spec.sides))
    for hook in hooks:
        hook.remove()
    weights = sum(parameter.numel() for parameter in network.parameters())
    return 4 * (3 * weights + 2 * numbers * min(spec.recipe.batch_size, len(spec.indices)))


def _count_images(specs: Sequence[ModelSpec]) -> int:
    """Images that pass through the networks in all epochs."""
    return sum(len(spec.indices) * spec.recipe.epochs for spec in specs)


def _count_pixels(specs: Sequence[ModelSpec]) -> int:
    return sum(_count_images([spec]) * math.prod(spec.sides) for spec in specs)
