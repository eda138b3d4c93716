"""The search for the smallest trigger of each pair (source class, target class), many pairs at once.

A trigger is a mask m and a pattern p as in Neural Cleanse (`securitynet.detectors._neural_cleanse.trigger_search`),
but it is tried on images of one class only. The weight of the mask's sum in the loss rises while the trigger works and
falls while it does not, so that it stays at the boundary; the smallest norm with which the trigger worked counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from securitynet.models.targets.input_gradients import InputGradients, compute_cross_entropy
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator

GROUP_NUMBERS = 1 << 24
"""Most numbers in the triggered images of one step: 64 MiB."""

FIRST_WEIGHT, RAISED, LOWERED, PERIOD = 1e-2, 1.5, 1.8, 4
"""First weight of the norm; its factor after success and its divisor after failure, applied once in so many steps."""

RATE = 0.1
"""Learning rate of Adam."""


@dataclass(frozen=True, eq=False)
class PairTriggers:
    """The smallest triggers of P pairs.

    Attributes:
        norms: Sums of their masks, P float64; infinite where no trigger worked.
        masks: P×1×H×W in [0, 1]; where none worked, the last ones.
        patterns: P×C×H×W in [0, 1].
    """

    norms: torch.Tensor
    masks: torch.Tensor
    patterns: torch.Tensor


def search_pairs(
    target: Target,
    images: torch.Tensor,
    pairs: torch.Tensor,
    *,
    steps: int,
    success: float,
    seed: int,
    report_progress: Callable[[float], None] = lambda share: None,
) -> PairTriggers:
    """Search for the smallest trigger of each pair.

    Args:
        target: The target, under white-box access.
        images: As many images of each source class, K×n×C×H×W in [0, 1].
        pairs: Source and target of each pair, P×2.
        steps: Steps of the optimisation.
        success: Least share of a pair's images that a working trigger sends to its target.
        seed: Seed of the starting points; those of a pair do not depend on the other pairs.
        report_progress: Called with the share of the work that is done, in [0, 1].
    """
    gradients = InputGradients(target, loss=compute_cross_entropy)
    group = max(1, GROUP_NUMBERS // images[0].numel())
    parts = []
    for number, part in enumerate(torch.split(pairs, group)):

        def report(step: int, done: int = number * group, size: int = len(part)) -> None:
            report_progress((done + size * step / steps) / len(pairs))

        parts.append(_search_group(gradients, images, part, steps, success, seed, report))
    return PairTriggers(
        torch.cat([part.norms for part in parts]),
        torch.cat([part.masks for part in parts]),
        torch.cat([part.patterns for part in parts]),
    )


def apply_triggers(images: torch.Tensor, masks: torch.Tensor, patterns: torch.Tensor) -> torch.Tensor:
    """Blend the pattern of each of P pairs into its n images.

    Args:
        images: P×n×C×H×W in [0, 1].
        masks: P×1×H×W in [0, 1].
        patterns: P×C×H×W in [0, 1].
    """
    return torch.lerp(images, patterns[:, None], masks[:, None])


def _search_group(
    gradients: InputGradients,
    images: torch.Tensor,
    pairs: torch.Tensor,
    steps: int,
    success: float,
    seed: int,
    report: Callable[[int], None],
) -> PairTriggers:
    sources, goals = pairs[:, 0], pairs[:, 1]
    shown, count = images[sources], images.shape[1]
    _, _, channels, height, width = images.shape
    drawn = [
        torch.randn((channels + 1, height, width), generator=make_generator(seed, f"class pair {int(a)} to {int(b)}"))
        for a, b in pairs
    ]
    raw = (0.1 * torch.stack(drawn)).to(images.device).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=RATE, betas=(0.5, 0.9))
    weights = torch.full((len(pairs),), FIRST_WEIGHT, device=images.device)
    best, best_norms = raw.detach().clone(), torch.full((len(pairs),), torch.inf, device=images.device)
    labels = goals.to(images.device).repeat_interleave(count)
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(steps):
            trigger = (torch.tanh(raw) + 1) / 2
            triggered = apply_triggers(shown, trigger[:, -1:], trigger[:, :-1])
            norms = trigger[:, -1].sum(dim=(1, 2))
            passed = gradients(triggered.detach().flatten(0, 1), labels)
            hits = (passed.logits.argmax(dim=1) == labels).view(-1, count).float().mean(dim=1)
            works, current = hits >= success, norms.detach()
            better = works & (current < best_norms)
            best_norms = torch.where(better, current, best_norms)
            best = torch.where(better.view(-1, 1, 1, 1), raw.detach(), best)
            optimizer.zero_grad()
            of_loss = (passed.gradients / count).view_as(triggered)
            penalty = (weights * norms).sum()
            torch.autograd.backward([triggered, penalty], [of_loss, torch.ones_like(penalty)])
            optimizer.step()
            if step % PERIOD == PERIOD - 1:
                weights = torch.where(works, weights * RAISED, weights / LOWERED)
            report(step + 1)
    smallest = (torch.tanh(torch.where(torch.isfinite(best_norms).view(-1, 1, 1, 1), best, raw.detach())) + 1) / 2
    return PairTriggers(best_norms.double().cpu(), smallest[:, -1:], smallest[:, :-1])
