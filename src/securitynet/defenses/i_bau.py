"""I-BAU: the model is trained against the universal perturbation that changes most predictions (implicit gradients)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch.nn import functional
from typing_extensions import override

from securitynet.defenses._repair import RepairDefense, RepairTask, check_finite_loss, fine_tune

InnerLoss = Callable[[torch.Tensor], torch.Tensor]

_PENALTY = 0.001
"""Weight of the squared norm of the perturbation in the inner loss."""


class IBau(RepairDefense):
    """Implicit backdoor adversarial unlearning: a minimax problem over the weights and one perturbation of all images.

    Zeng et al., "Adversarial unlearning of backdoors via implicit hypergradient" (2022), algorithm 1. In each round, a
    perturbation δ is found that raises the loss on all clean images; the weights are then trained on images of which
    half carry δ. The gradient of the weights includes how δ itself depends on them (equation 6), by ``iterations``
    fixed-point iterations. No trigger needs to be known or found. Fine-tuning follows, in which half of the images
    carry one of the perturbations of the rounds; the paper has no such step, and few images need it.

    Attributes:
        rounds: Rounds.
        inner_steps: Steps of the perturbation in each round.
        iterations: Fixed-point iterations of the implicit gradient; 0 leaves that term out.
        budget: Largest root mean square of the perturbation over the pixels, in [0, 1]. The paper's norm of 10 on
            32×32 colour images is 0.18.
        learning_rate: Learning rate of Adam for the weights.
        epochs: Passes of fine-tuning at the end; 0 leaves them out.
        batch_size: Images per step.
    """

    rounds: int = Field(default=5, ge=1, description="Rounds.")
    inner_steps: int = Field(default=10, ge=1, description="Steps of the perturbation in each round.")
    iterations: int = Field(default=5, ge=0, description="Fixed-point iterations of the implicit gradient.")
    budget: float = Field(default=0.1, gt=0, le=1, description="Largest root mean square of the perturbation.")
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="Of Adam, for the weights.")
    epochs: int = Field(default=15, ge=0, description="Passes of fine-tuning at the end.")
    batch_size: int = Field(default=64, ge=1, description="Images per step.")

    @override
    def repair(self, task: RepairTask) -> tuple[str, ...]:
        weights = [weight for weight in task.network.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.learning_rate)
        task.network.eval()  # batch norms keep their statistics, which few images could not replace
        perturbations = []
        for number in range(self.rounds):
            perturbation = self.find_perturbation(task, number)
            perturbations.append(perturbation)
            for rows in task.batches(self.batch_size, "i-bau outer", number):
                images, labels = task.batch(rows)
                carries = (torch.arange(len(images), device=images.device) % 2 == 0).view(-1, 1, 1, 1)
                delta = perturbation.detach().requires_grad_()
                outer = functional.cross_entropy(task.logits(_perturb(images, delta * carries)), labels)
                check_finite_loss(outer)
                inner = _inner_loss(task, images, labels)
                gradients = compute_implicit_gradient(
                    outer, inner, delta, weights, iterations=self.iterations, learning_rate=0.1
                )
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.grad = gradient
                optimizer.step()
            task.report_progress(number + 1, self.rounds + self.epochs)
        if self.epochs:

            def perturb_half(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
                which = torch.randint(2 * len(perturbations), (len(images),), generator=random).to(images.device)
                zeros = torch.zeros_like(perturbations[0])
                choices = torch.cat([*perturbations, *[zeros] * len(perturbations)])
                return _perturb(images, choices[which])

            fine_tune(
                task,
                epochs=self.epochs,
                learning_rate=0.02,
                batch_size=self.batch_size,
                change=perturb_half,
                started=self.rounds,
            )
        return (f"Trained against universal perturbations of a root mean square up to {self.budget:g}.",)

    def find_perturbation(self, task: RepairTask, number: int) -> torch.Tensor:
        """Find the perturbation of all images that raises the loss most within the budget; 1×C×H×W.

        Args:
            task: The network and the images.
            number: Number of the round, for the order of the images.
        """
        largest = self.budget * math.sqrt(task.images[0].numel())
        delta = torch.zeros((1, *task.images.shape[1:]), device=task.device)
        step = 2.5 * largest / self.inner_steps  # may reach the bound and turn there (Madry et al., 2018)
        done = 0
        while done < self.inner_steps:
            for rows in task.batches(4 * self.batch_size, "i-bau inner", 1000 * number + done):
                images, labels = task.batch(rows)
                delta.requires_grad_()
                loss = _inner_loss(task, images, labels)(delta)
                (gradient,) = torch.autograd.grad(loss, delta)
                with torch.no_grad():
                    delta = delta - step * gradient / gradient.norm().clamp(min=1e-12)
                    delta = delta * (largest / delta.norm().clamp(min=1e-12)).clamp(max=1)
                done += 1
                if done == self.inner_steps:
                    break
        return delta


def compute_implicit_gradient(
    outer: torch.Tensor,
    inner: InnerLoss,
    delta: torch.Tensor,
    weights: Sequence[torch.Tensor],
    *,
    iterations: int,
    learning_rate: float,
) -> list[torch.Tensor]:
    """Gradient of the outer loss with respect to the weights, where the perturbation minimises the inner loss.

    The perturbation is a fixed point of Φ(δ, w) = δ − η ∂inner/∂δ, so its derivative follows from those of Φ; the
    product with the outer gradient is the limit of v ← (∂Φ/∂δ)ᵀ v + ∂outer/∂δ.

    Args:
        outer: The outer loss, a function of ``delta`` and ``weights``.
        inner: Computes the inner loss from a perturbation, with the same weights.
        delta: The perturbation, which requires gradients.
        weights: The weights.
        iterations: Number of iterations; 0 gives the gradient with a constant perturbation.
        learning_rate: The step size η of Φ.

    Returns:
        One gradient per weight.
    """
    direct = torch.autograd.grad(outer, [delta, *weights], allow_unused=True)
    to_weights = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, direct[1:], strict=True)]
    if not iterations or direct[0] is None:
        return to_weights
    start: torch.Tensor = direct[0]
    (slope,) = torch.autograd.grad(inner(delta), delta, create_graph=True)
    mapped = delta - learning_rate * slope
    vector = start
    for _ in range(iterations):
        (product,) = torch.autograd.grad(mapped, delta, vector, retain_graph=True)
        vector = product + start
    indirect = torch.autograd.grad(mapped, weights, vector, allow_unused=True)
    return [own if other is None else own + other for own, other in zip(to_weights, indirect, strict=True)]


def _inner_loss(task: RepairTask, images: torch.Tensor, labels: torch.Tensor) -> InnerLoss:
    def loss(delta: torch.Tensor) -> torch.Tensor:
        attacked = functional.cross_entropy(task.logits(_perturb(images, delta)), labels)
        return _PENALTY * delta.square().sum() - attacked

    return loss


def _perturb(images: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    return (images + delta).clamp(0, 1)
