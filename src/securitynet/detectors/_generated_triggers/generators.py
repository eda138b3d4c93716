"""Small networks that change any image into one of a class by as little as possible: one for each class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from securitynet.models.targets.input_gradients import InputGradients, cross_entropy
from securitynet.models.targets.target import Target
from securitynet.randomness import generator

WIDTH = 8
"""Channels of the two hidden layers of each network."""

RATE = 0.02
"""Learning rate of Adam."""

FIRST_WEIGHT, RAISED, LOWERED, PERIOD = 1e-2, 1.5, 1.8, 4
"""First weight of the change; its factor after success and its divisor after failure, applied once in so many steps."""

SLACK = 0.1
"""By how much the success on images that did not train the networks may be smaller."""

LEAK = 0.1
"""Slope of the hidden layers below 0."""


class Generators(torch.nn.Module):
    """K networks of three 3×3 convolutions, computed together as groups; each returns a change in [-1, 1].

    Besides the image they see the place of each pixel, so that they can paint a patch, and what surrounds it, so that
    they can move or blur what is there.

    Args:
        classes: K.
        channels: Of the images.
        random: Random numbers of the first weights.
    """

    def __init__(self, classes: int, channels: int, random: torch.Generator) -> None:
        super().__init__()
        self.classes, self.channels = classes, channels
        sizes = ((channels + 2, WIDTH, 1.0), (WIDTH, WIDTH, 1.0), (WIDTH, channels, 0.1))
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for inputs, outputs, scale in sizes:
            drawn = torch.randn((classes * outputs, inputs, 3, 3), generator=random)
            self.weights.append(torch.nn.Parameter(drawn * scale * (2 / (9 * inputs)) ** 0.5))
            self.biases.append(torch.nn.Parameter(torch.zeros(classes * outputs)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Change N images, N×C×H×W in [0, 1], towards each class: K×N×C×H×W in [0, 1]."""
        height, width = images.shape[2:]
        rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in (height, width))
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(images), -1, -1, -1)
        values = torch.cat([images, places], dim=1).repeat(1, self.classes, 1, 1)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = functional.conv2d(values, weight, bias, padding=1, groups=self.classes)
            values = functional.leaky_relu(values, LEAK) if number < 2 else torch.tanh(values)
        changes = values.view(len(images), self.classes, self.channels, height, width).transpose(0, 1)
        return (images + changes).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Generated:
    """What K generators reached.

    Attributes:
        norms: Mean L2 norms of the smallest changes that worked, K; infinite where none did.
        images: The images with these changes, K×V×C×H×W in [0, 1]; where none worked, with the last ones.
    """

    norms: torch.Tensor
    images: torch.Tensor


def train_generators(
    target: Target,
    images: torch.Tensor,
    fresh: torch.Tensor,
    classes: int,
    *,
    steps: int,
    success: float,
    seed: int,
    report_progress: Callable[[float], None] = lambda share: None,
) -> Generated:
    """Train a generator for each class, and return the smallest changes that work on images it was not trained on.

    Args:
        target: The target, under white-box access.
        images: Training images, N×C×H×W in [0, 1].
        fresh: Other images, V×C×H×W in [0, 1].
        classes: K.
        steps: Steps of the training.
        success: Least share of the training images that reach the class; `SLACK` less suffices on the fresh ones.
        seed: Seed of the first weights.
        report_progress: Called with the share of the work that is done, in [0, 1].
    """
    count, device = len(images), images.device
    gradients = InputGradients(target, loss=cross_entropy)
    labels = torch.arange(classes, device=device).repeat_interleave(count)
    goals = torch.arange(classes, device=device).repeat_interleave(len(fresh))
    weights = torch.full((classes,), FIRST_WEIGHT, device=device)
    smallest = torch.full((classes,), torch.inf, device=device)
    with torch.inference_mode(False), torch.enable_grad():
        networks = Generators(classes, images.shape[1], generator(seed, "generated triggers")).to(device)
        optimizer = torch.optim.Adam(networks.parameters(), lr=RATE)
        best = fresh.expand(classes, *fresh.shape).clone()
        for step in range(steps):
            changed = networks(images)
            norms = _measure_changes(changed, images)
            passed = gradients(changed.detach().flatten(0, 1), labels)
            works = _count_hits(passed.logits, labels, count) >= success
            if step % PERIOD == PERIOD - 1 or step == steps - 1:
                with torch.no_grad():
                    tried = networks(fresh)
                    hits = _count_hits(gradients.logits(tried.flatten(0, 1)), goals, len(fresh))
                    current = _measure_changes(tried, fresh)
                better = (hits >= success - SLACK) & (current < smallest)
                smallest = torch.where(better, current, smallest)
                keep = better | torch.isinf(smallest)
                best = torch.where(keep.view(-1, 1, 1, 1, 1), tried, best)
                weights = torch.where(works, weights * RAISED, weights / LOWERED)
            optimizer.zero_grad()
            of_loss = (passed.gradients / count).view_as(changed)
            torch.autograd.backward([changed, (weights * norms).sum()], [of_loss, None])
            optimizer.step()
            report_progress((step + 1) / steps)
    return Generated(smallest.double().cpu(), best)


def _measure_changes(changed: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Mean L2 norms of the changes, K."""
    return (changed - images).flatten(2).norm(dim=2).mean(dim=1)


def _count_hits(logits: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Shares of the images of each class's generator that reach it, K."""
    return (logits.argmax(dim=1) == labels).view(-1, count).float().mean(dim=1)
