"""The time that one image takes through a network and back, measured before work that needs millions of such passes."""

from __future__ import annotations

import time

import torch
from torch import nn

from securitynet.models.targets.backends.module import choose_batch
from securitynet.models.targets.outputs import take_scores
from securitynet.randomness import isolate_random_state

ANNOUNCED_SECONDS = 600.0
"""Work that takes longer is announced with an estimate."""

LEAST_PIXELS = 20_000_000_000
"""Pixels that a network sees, below which nothing is measured: those of 20 million images of 32×32."""


def measure_pass(network: nn.Module, shape: tuple[int, int, int], device: torch.device) -> float:
    """Measure the seconds that one image takes forward and backward, in a batch of suitable size, in the current mode.

    Args:
        network: The network; gradients of its weights are computed where they are required, and thrown away.
        shape: (C, H, W) of its inputs.
        device: Where it is.
    """
    count = choose_batch(shape, device)
    with isolate_random_state(), torch.inference_mode(False), torch.enable_grad():
        images = torch.rand((count, *shape), device=device, requires_grad=True)
        wanted = [images, *(weight for weight in network.parameters() if weight.requires_grad)]
        for part in (2, count):  # the first one warms up
            started = time.perf_counter()
            scores = take_scores(network(images[:part]), "The network")
            if scores.requires_grad:  # what passes no gradients is reported by what needs them
                torch.autograd.grad(scores.float().logsumexp(dim=1).sum(), wanted, allow_unused=True)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - started
    return seconds / count


def describe_time(seconds: float) -> str:
    """Describe an estimated time: ``40 minutes``, ``5 hours``, ``12 days``."""
    unit, length = next(((u, n) for u, n in (("days", 86400), ("hours", 3600)) if seconds >= 2 * n), ("minutes", 60))
    return f"{round(seconds / length):,} {unit}"
