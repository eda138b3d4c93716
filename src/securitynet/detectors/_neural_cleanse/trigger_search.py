"""The search for the smallest trigger of each label, many labels at once (Wang et al., 2019, section V-A).

A trigger is a mask m (one channel) and a pattern p, both in [0, 1] through tanh; an image becomes (1 - m)·x + m·p. The
loss is the cross-entropy towards the label plus a weight times the sum of m; Adam changes both.

Labels do not influence one another: each has its own mask, pattern, weight, counters and Adam state, and only their
images go through the network together. The network is frozen, and the gradients of mask and pattern follow in closed
form from that of its inputs, so only one backward pass to the inputs is computed. On a CPU, batches of a few labels run
side by side, one in each thread (`securitynet.models.targets.input_gradients`). Finished labels leave the batch.
`securitynet.detectors._neural_cleanse.blocks` searches many labels block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from securitynet.detectors._neural_cleanse.costs import CostRules, Costs
from securitynet.models.targets.input_gradients import InputGradients, compute_cross_entropy
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator

EPSILON = 1e-7
"""Keeps the inverse of tanh finite at the ends; the value of the authors' program (that of Keras)."""

GROUP_NUMBERS = 1 << 24
"""Most numbers in the triggered images of one step: 64 MiB."""

LEAST_WAY = 10.0
"""Least product of learning rate and steps after which a norm can have settled.

A step of Adam changes a value before tanh by about the learning rate, and tanh rises between -3 and 3. In fewer steps,
100 by default, a norm can look settled only because it cannot fall any faster.
"""

BETAS = (0.5, 0.9)
ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class SearchRules:
    """The settings that determine a search, besides network and images.

    Attributes:
        costs: The schedule of the norm's weight.
        learning_rate: Learning rate of Adam.
        batch_size: Images in a step.
        seed: Seed of the starting points and of the order of the images.
        light_epochs: How many epochs, from the first, use a quarter of the images of each step, drawn anew each epoch.
            Norms and success are taken from the epochs after them.
    """

    costs: CostRules
    learning_rate: float
    batch_size: int
    seed: int
    light_epochs: int = 0


class TriggerSearch:
    """The optimisation of the triggers of some labels.

    Starting points and the order of the images depend on seed, label and epoch alone: up to rounding, the triggers of a
    label do not depend on the labels that are searched beside it.

    Args:
        target: The target, under white-box access. Its precision is that of the passes.
        images: S×C×H×W uint8, on the target's device.
        labels: The L labels.
        rules: The settings of the search.
    """

    def __init__(self, target: Target, images: torch.Tensor, labels: list[int], rules: SearchRules) -> None:
        self.images, self.rules = images, rules
        self.device = images.device
        self.labels = torch.tensor(labels, dtype=torch.int64)
        count, (channels, height, width) = len(labels), images.shape[1:]
        masks = torch.stack([_start((1, height, width), rules.seed, "mask", label) for label in labels])
        patterns = torch.stack([_start((channels, height, width), rules.seed, "pattern", label) for label in labels])
        # One tensor for both: the mask is the channel after the pattern's.
        self.raw = torch.cat([patterns, masks], dim=1).to(self.device)
        self.first = torch.zeros_like(self.raw)
        self.second = torch.zeros_like(self.raw)
        self.steps = torch.zeros(count, dtype=torch.int64)
        self.epochs = torch.zeros(count, dtype=torch.int64)
        self.active = torch.ones(count, dtype=torch.bool)
        self.costs = Costs.fresh(rules.costs, count)
        self.best = self.raw.clone()
        self.success = torch.zeros(count, dtype=torch.float64)
        self._gradients = InputGradients(target, loss=compute_cross_entropy)

    @property
    def converged(self) -> torch.Tensor:
        """Labels for which some trigger worked, L."""
        return torch.isfinite(self.costs.best)

    def masks(self) -> torch.Tensor:
        """Best masks, L×H×W in [0, 1]; where none worked, the current ones."""
        return _squash(torch.where(self._has_best(), self.best, self.raw))[:, -1]

    def patterns(self) -> torch.Tensor:
        """The patterns that belong to `masks`, L×C×H×W in [0, 1]."""
        return _squash(torch.where(self._has_best(), self.best, self.raw))[:, :-1]

    def norms(self) -> torch.Tensor:
        """Sums of the best masks, L float64 on the CPU; infinite where none worked."""
        return torch.where(self.converged, self.masks().double().sum(dim=(1, 2)).cpu(), torch.inf)

    def settled(self) -> torch.Tensor:
        """Labels whose norms are close to their minimum, L bool on the CPU."""
        start = 0.5 * self.raw.shape[-2] * self.raw.shape[-1]  # masks begin as uniform random values
        far_enough = ~self.active | (self.steps * self.rules.learning_rate >= LEAST_WAY)
        return self.costs.find_settled(~self.active, start) & far_enough

    def _has_best(self) -> torch.Tensor:
        return self.converged.to(self.device)[:, None, None, None]

    def epoch(self, number: int, report_progress: Callable[[int], None] | None = None) -> None:
        """Pass over the images once for all active labels.

        Args:
            number: Number of the epoch, from 0; it determines the order of the images.
            report_progress: Called with the number of labels that were completed since the last call.
        """
        size = min(self.rules.batch_size, len(self.images))
        order = torch.randperm(len(self.images), generator=make_generator(self.rules.seed, "order", number))
        steps = len(order) // size
        light = number < self.rules.light_epochs
        if light:
            size = max(1, size // 4)
        elif number == self.rules.light_epochs:
            self.costs.forget()
            self.success.zero_()
        order = order[: steps * size]
        rows = torch.nonzero(self.active).flatten()
        group = max(1, GROUP_NUMBERS // (size * self.images[0].numel()))
        for part in torch.split(rows, group):
            self._epoch_of(part, order, size, may_finish=not light)
            if report_progress:
                report_progress(len(part))

    def _epoch_of(self, rows: torch.Tensor, order: torch.Tensor, size: int, may_finish: bool) -> None:
        raw, first, second = self.raw[rows], self.first[rows], self.second[rows]
        labels = self.labels[rows].to(self.device)
        cost = self.costs.cost[rows].to(self.device, raw.dtype)[:, None, None]
        hits = torch.zeros(len(rows), dtype=torch.float64)
        norms = torch.zeros(len(rows), dtype=torch.float64)
        steps = int(self.steps[rows[0]])  # all active labels have taken equally many
        batches = torch.split(order, size)
        for chosen in batches:
            images = self.images[chosen.to(self.device)].float().div_(255)
            trigger = _squash(raw)
            pattern, mask = trigger[:, :-1], trigger[:, -1]
            gradients, right = self._backward(images, pattern, mask, labels)
            summed = gradients.sum(dim=1)
            to_mask = (summed * pattern).sum(dim=1) - (gradients * images).sum(dim=(1, 2)) + cost
            outer = torch.cat([summed * mask[:, None], to_mask[:, None]], dim=1)
            steps += 1
            _adam(raw, outer * _slope(trigger), first, second, steps, self.rules.learning_rate)
            hits += right.cpu()
            norms += mask.double().sum(dim=(1, 2)).cpu()
        self.raw[rows], self.first[rows], self.second[rows] = raw, first, second
        self.steps[rows] = steps
        self.epochs[rows] += 1
        success = hits / (len(batches) * size)
        better, finished = self.costs.update(rows, success, norms / len(batches), may_finish=may_finish)
        self.best[rows[better]] = raw[better.to(self.device)]
        self.success[rows[better]] = success[better]
        self.active[rows[finished]] = False

    def _backward(
        self, images: torch.Tensor, pattern: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the mean cross-entropies to the triggered images, A×B×C×H×W; hits of each label, A float64."""
        count, batch = len(labels), len(images)
        blended = torch.lerp(images[None], pattern[:, None], mask[:, None, None]).flatten(0, 1)
        goals = labels.repeat_interleave(batch)
        passed = self._gradients(blended, goals)
        right = (passed.logits.argmax(dim=1) == goals).view(count, batch)
        return passed.gradients.div_(batch).view(count, batch, *blended.shape[1:]), right.double().sum(dim=1)

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that change, by name."""
        names = ("raw", "first", "second", "steps", "epochs", "active", "best", "success")
        tensors = {name: getattr(self, name).cpu().clone() for name in names}
        return {**tensors, **{f"costs.{name}": value.clone() for name, value in self.costs.tensors().items()}}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Resume from what `state` returned."""
        for name, value in state.items():
            holder, _, attribute = name.rpartition(".")
            if holder:
                setattr(self.costs, attribute, value)
            else:
                setattr(self, name, value.to(getattr(self, name).device))


def _start(shape: tuple[int, int, int], seed: int, what: str, label: int) -> torch.Tensor:
    """Random values whose squashed form is uniform in [0, 1]."""
    drawn = torch.rand(shape, generator=make_generator(seed, f"trigger {what}", label), dtype=torch.float64)
    return torch.atanh((drawn - 0.5) * (2 - EPSILON)).float()


def _squash(raw: torch.Tensor) -> torch.Tensor:
    return torch.tanh(raw).div_(2 - EPSILON).add_(0.5)


def _slope(squashed: torch.Tensor) -> torch.Tensor:
    """Derivative of `_squash`, from its value."""
    return (1 - ((squashed - 0.5) * (2 - EPSILON)).square()) / (2 - EPSILON)


def _adam(
    values: torch.Tensor, gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor, step: int, rate: float
) -> None:
    """One step of Adam, in place."""
    first.lerp_(gradient, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    scale = (second / (1 - BETAS[1] ** step)).sqrt_().add_(ADAM_EPSILON)
    values.addcdiv_(first, scale, value=-rate / (1 - BETAS[0] ** step))
