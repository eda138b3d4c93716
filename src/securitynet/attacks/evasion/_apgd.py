"""Auto-PGD: projected gradient ascent that chooses its step sizes itself, in L∞, L2 and L1.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
(2020), section 3 and algorithm 1 (L∞, L2); Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on
image classifiers" (2021), section 3 (L1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from securitynet.attacks.evasion._norms import Norm, find_direction, project
from securitynet.models.targets.input_gradients import InputGradients

MOMENTUM = 0.75
"""Share of the gradient step in an update; the rest repeats the previous move (equation 4)."""

RISES = 0.75
"""The step is halved if the loss rose in at most this share of the iterations since the last check; the paper's ρ."""

FIRST_CHECK, SHORTER, SHORTEST = 0.22, 0.03, 0.06
"""First period between checks, its decrease at each check, and its least value, as shares of all iterations."""

L1_PERIOD, L1_DENSITY, L1_KEPT, L1_REDUCTION, L1_LEAST_STEP = 0.04, 0.2, 0.95, 1.5, 0.1
"""L1: period between checks, share of the first step's values that move, share of changed values below which the step
starts anew, the divisor of step and density, and the smallest step as a multiple of epsilon."""

WIDER = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""L1: multiples of epsilon, and the share of the iterations spent at each."""

BISECTIONS = 40
"""Halvings when an L1 threshold is searched, after which single precision is exhausted."""


def compute_targeted_ratio(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Targeted difference of logits ratio (equation 7), N, for images that are still classified correctly.

    The paper's z_y is then the largest logit, so that the true class need not be given.

    Args:
        logits: N×K, K at least 4.
        targets: The class to reach, N.
    """
    ordered = logits.sort(dim=1, descending=True).values
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12
    return (logits.gather(1, targets[:, None])[:, 0] - ordered[:, 0]) / scale


def project_l1(deltas: torch.Tensor, images: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Project perturbations onto the L1 ball within the box [0, 1] ("Mind the box", proposition 2.1), N×C×H×W.

    The nearest point shrinks each value by the same threshold and cuts it at the box; the threshold is bisected.

    Args:
        deltas: Perturbations to project.
        images: The images that they are added to, in [0, 1].
        epsilon: Largest L1 norm.
    """
    flat, pixels = deltas.flatten(1), images.flatten(1)
    room = torch.where(flat > 0, 1 - pixels, pixels)
    amounts = flat.abs()
    low, high = torch.zeros(len(flat), 1, device=flat.device), amounts.amax(dim=1, keepdim=True)
    outside = torch.minimum(amounts, room).sum(dim=1, keepdim=True) > epsilon
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = torch.minimum((amounts - middle).clamp_min(0), room).sum(dim=1, keepdim=True) > epsilon
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    threshold = torch.where(outside, high, torch.zeros_like(high))
    return (torch.minimum((amounts - threshold).clamp_min(0), room) * flat.sign()).view_as(deltas)


def start_apgd(images: torch.Tensor, epsilon: float, norm: Norm, random: torch.Generator) -> torch.Tensor:
    """Draw the starting points, at the distance epsilon and clipped to [0, 1], n×C×H×W.

    Args:
        images: Images in [0, 1].
        epsilon: Distance from the images.
        norm: Norm of the distance.
        random: Random numbers.
    """
    if norm == "linf":
        noise = torch.rand(images.shape, generator=random) * 2 - 1
        noise = noise / noise.flatten(1).abs().amax(dim=1).view(-1, 1, 1, 1)
        return (images + epsilon * noise.to(images.device)).clamp(0, 1)
    noise = torch.randn(images.shape, generator=random).to(images.device)
    if norm == "l1":
        return (images + project_l1(noise, images, epsilon)).clamp(0, 1)
    return (images + epsilon * find_direction(noise, "l2")).clamp(0, 1)


@dataclass(eq=False)
class _State:
    """The search of n images: points and their gradients n×C×H×W, the others n."""

    rows: torch.Tensor
    images: torch.Tensor
    labels: torch.Tensor
    current: torch.Tensor
    previous: torch.Tensor
    gradient: torch.Tensor
    best: torch.Tensor
    best_gradient: torch.Tensor
    loss: torch.Tensor
    best_loss: torch.Tensor
    best_at_check: torch.Tensor
    step: torch.Tensor
    rises: torch.Tensor
    reduced: torch.Tensor
    density: torch.Tensor
    changed: torch.Tensor

    def select(self, mask: torch.Tensor) -> _State:
        return replace(self, **{item.name: getattr(self, item.name)[mask] for item in fields(self)})


def run_apgd(
    take: InputGradients,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: torch.Tensor,
    *,
    epsilon: float,
    norm: Norm,
    steps: int,
    start: torch.Tensor,
    stop_early: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run Auto-PGD from one starting point per image.

    Args:
        take: Gradients of the loss to maximise.
        images: Images in [0, 1], n×C×H×W, n at least 1.
        labels: True classes, n.
        classes: Classes that are passed to the loss: the true classes, or those to reach, n.
        epsilon: Largest norm of a perturbation.
        norm: The norm, not L0.
        steps: Number of iterations.
        start: Starting points, n×C×H×W.
        stop_early: Whether to stop on an image that is misclassified. If not, the points with the highest loss are
            returned, as for random targets.

    Returns:
        The final images, n×C×H×W, and whether each was misclassified when it was visited, n.
    """
    result, evaded = start.clone(), torch.zeros(len(images), dtype=torch.bool)
    state, wrong = _begin(take, images, labels, classes, start, epsilon, norm)
    period = max(int((L1_PERIOD if norm == "l1" else FIRST_CHECK) * steps), 1)
    since = 0
    for iteration in range(steps + 1):
        result[state.rows] = state.best
        evaded[state.rows] = wrong
        if stop_early and bool(wrong.any()):
            result[state.rows[wrong]] = state.current[wrong]
            state, wrong = state.select(~wrong), wrong[~wrong]
        if iteration == steps or not len(state.rows):
            break
        if since == period:
            _adapt(state, period, epsilon, norm)
            since = 0
            if norm != "l1":
                period = max(period - max(int(SHORTER * steps), 1), max(int(SHORTEST * steps), 1))
        moved = _move(state, epsilon, norm, momentum=MOMENTUM if iteration else 1.0)
        state.previous, state.current = state.current, moved
        passed = take(moved, classes[state.rows])
        loss = take.loss(passed.logits, classes[state.rows])
        state.gradient = passed.gradients
        state.rises += loss > state.loss
        state.loss = loss
        better = loss > state.best_loss
        state.best = torch.where(better.view(-1, 1, 1, 1), moved, state.best)
        state.best_gradient = torch.where(better.view(-1, 1, 1, 1), state.gradient, state.best_gradient)
        state.best_loss = torch.where(better, loss, state.best_loss)
        wrong = passed.logits.argmax(dim=1) != state.labels
        since += 1
    return result, evaded


def run_l1(
    take: InputGradients,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: torch.Tensor,
    *,
    epsilon: float,
    steps: int,
    random: torch.Generator,
    stop_early: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run Auto-PGD in L1 with budgets that shrink from three times epsilon to epsilon ("Mind the box", section 3.3).

    Args:
        take: As for `run_apgd`.
        images: Likewise.
        labels: Likewise.
        classes: Likewise.
        epsilon: Largest L1 norm of a perturbation.
        steps: Number of iterations in total.
        random: Random numbers of the starting points.
        stop_early: As for `run_apgd`, at the last of the budgets.
    """
    point = start_apgd(images, WIDER[0][0] * epsilon, "l1", random)
    evaded = torch.zeros(len(images), dtype=torch.bool)
    for number, (multiple, share) in enumerate(WIDER):
        point = (images + project_l1(point - images, images, multiple * epsilon)).clamp(0, 1)
        last = number == len(WIDER) - 1
        point, evaded = run_apgd(
            take,
            images,
            labels,
            classes,
            epsilon=multiple * epsilon,
            norm="l1",
            steps=max(int(share * steps), 1),
            start=point,
            stop_early=stop_early and last,
        )
    return point, evaded


def _begin(
    take: InputGradients,
    images: torch.Tensor,
    labels: torch.Tensor,
    classes: torch.Tensor,
    start: torch.Tensor,
    epsilon: float,
    norm: Norm,
) -> tuple[_State, torch.Tensor]:
    passed = take(start, classes)
    loss, n = take.loss(passed.logits, classes), len(images)
    changed = _share_changed(start - images)
    state = _State(
        rows=torch.arange(n),
        images=images,
        labels=labels,
        current=start.clone(),
        previous=start.clone(),
        gradient=passed.gradients,
        best=start.clone(),
        best_gradient=passed.gradients.clone(),
        loss=loss,
        best_loss=loss.clone(),
        best_at_check=loss.clone(),
        step=torch.full((n,), epsilon * (1.0 if norm == "l1" else 2.0)),
        rises=torch.zeros(n, dtype=torch.int64),
        reduced=torch.ones(n, dtype=torch.bool),
        density=torch.where(changed > 0, changed / L1_REDUCTION, torch.full((n,), L1_DENSITY)),
        changed=torch.where(changed > 0, changed, torch.ones(n)),
    )
    return state, passed.logits.argmax(dim=1) != labels


def _move(state: _State, epsilon: float, norm: Norm, *, momentum: float) -> torch.Tensor:
    step = state.step.view(-1, 1, 1, 1)
    if norm == "l1":
        flat = state.gradient.flatten(1)
        count = (state.density * flat.shape[1]).long().clamp(1, flat.shape[1])
        least = flat.abs().sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
        sparse = torch.where(flat.abs() >= least, flat, torch.zeros_like(flat)).sign()
        unit = sparse / sparse.abs().sum(dim=1, keepdim=True).clamp_min(1)
        delta = state.current + step * unit.view_as(state.gradient) - state.images
        return (state.images + project_l1(delta, state.images, epsilon)).clamp(0, 1)
    assert norm != "l0"  # the caller's contract
    ahead = project(state.current + step * find_direction(state.gradient, norm), state.images, epsilon, norm)
    blended = state.current + momentum * (ahead - state.current) + (1 - momentum) * (state.current - state.previous)
    return project(blended, state.images, epsilon, norm)


def _adapt(state: _State, period: int, epsilon: float, norm: Norm) -> None:
    """Shorten the steps of images whose loss does not rise any more, and send these back to their best points."""
    if norm == "l1":
        changed = _share_changed(state.best - state.images)
        back = changed / state.changed < L1_KEPT
        shorter = (state.step / L1_REDUCTION).clamp_min(L1_LEAST_STEP * epsilon)
        state.step = torch.where(back, torch.full_like(shorter, epsilon), shorter)
        state.density, state.changed = changed / L1_REDUCTION, changed.clamp_min(1e-12)
    else:
        stuck = ~state.reduced & (state.best_at_check >= state.best_loss)
        back = (state.rises <= RISES * period) | stuck
        state.step = torch.where(back, state.step / 2, state.step)
        state.reduced, state.best_at_check = back, state.best_loss.clone()
    state.rises = torch.zeros_like(state.rises)
    state.current = torch.where(back.view(-1, 1, 1, 1), state.best, state.current)
    state.gradient = torch.where(back.view(-1, 1, 1, 1), state.best_gradient, state.gradient)


def _share_changed(deltas: torch.Tensor) -> torch.Tensor:
    return (deltas != 0).flatten(1).float().mean(dim=1)
