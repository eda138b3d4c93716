"""Fredrikson's attack: a representative image of each class, found by gradient descent on its pixels.

Fredrikson, Jha and Ristenpart, "Model inversion attacks that exploit confidence information and basic countermeasures"
(2015), algorithm 1, with the hyperparameters of ML-Doctor (section 5.2). It needs the model and no data. On deep
networks, plain gradient descent ends in unrecognisable patterns; total variation and an L2 prior mitigate that.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.attacks.inversion._search import (
    InversionResult,
    InversionSearch,
    Tensors,
    compute_gradients,
    identify_search,
    step_adam,
)
from securitynet.attacks.inversion.base import InversionAttack
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

_BETAS = (0.9, 0.999)


class Fredrikson(InversionAttack):
    """Descends until the posterior of the class exceeds the threshold, or the cost stops falling.

    The result is the image with the lowest cost. All images are computed together, and each stops on its own.

    Attributes:
        objective: ``log-posterior``: the cost is −log of the posterior; ``posterior``: 1 − posterior, as in the paper,
            which has hardly any gradient where the posterior is near 0.
        threshold: Posterior at which an image stops.
        learning_rate: Learning rate of the descent, for pixels in [0, 1].
        iterations: Largest number of iterations.
        patience: Number of iterations without a lower cost after which an image stops.
        optimizer: Plain gradient descent, or Adam.
        total_variation: Weight of the sum of differences between neighbouring pixels (Mahendran and Vedaldi, 2015).
        l2: Weight of the squared distance to the starting colour, after normalisation.
        start: ``mean``: the colour that the target's normalisation maps to zero, because the paper starts from zero;
            without normalisation, black for grey images and mid-grey for colour images. Or black, grey, or noise.
        spread: Standard deviation of the noise that restarts after the first add to a uniform start.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE),)
    costs: ClassVar[str | None] = "trains an evaluation classifier and runs thousands of gradient steps for each class"

    restarts: int = Field(default=1, ge=1, description="Reconstructions of each class.")
    objective: Literal["log-posterior", "posterior"] = Field(default="log-posterior", description="What is maximised.")
    threshold: float = Field(default=0.999, gt=0, lt=1, description="Posterior at which an image stops.")
    learning_rate: float = Field(default=1e-2, gt=0, allow_inf_nan=False, description="Of the descent.")
    iterations: int = Field(default=3000, ge=1, description="Iterations at most.")
    patience: int = Field(default=100, ge=1, description="Iterations without progress after which an image stops.")
    optimizer: Literal["sgd", "adam"] = Field(default="sgd", description="Plain gradient descent, or Adam.")
    total_variation: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Weight of total variation.")
    l2: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Weight of the distance to the start.")
    start: Literal["mean", "black", "grey", "noise"] = Field(default="mean", description="Where the descent starts.")
    spread: float = Field(default=0.1, ge=0, allow_inf_nan=False, description="Noise of further restarts.")

    @override
    def search(self, attacked: AttackedClasses, data: TrialData, context: Context) -> InversionSearch:
        classes = attacked.classes.to(attacked.device)
        colour, scale = _colour(attacked, self.start)
        rows = torch.arange(len(classes), device=attacked.device)

        def start() -> Tensors:
            images = colour.expand(len(classes), *attacked.shape).clone()
            draws = make_generator(context.seed, "inversion starts")
            if self.start == "noise":
                images = torch.rand(images.shape, generator=draws).to(attacked.device)
            else:
                noise = self.spread * torch.randn(images.shape, generator=draws).to(attacked.device)
                images = torch.where((rows % attacked.restarts == 0)[:, None, None, None], images, images + noise)
            return {
                "images": images.clamp(0, 1),
                "best": images.clamp(0, 1),
                "cost": torch.full((len(classes),), torch.inf, device=attacked.device),
                "since": torch.zeros_like(classes),
                "iterations": torch.zeros_like(classes),
                "active": torch.ones_like(classes, dtype=torch.bool),
                "mean": torch.zeros_like(images) if self.optimizer == "adam" else torch.zeros(0),
                "square": torch.zeros_like(images) if self.optimizer == "adam" else torch.zeros(0),
            }

        def advance(state: Tensors, step: int) -> bool:
            # For small networks, indexing is slower than the forward pass: use whole tensors until an image stops.
            at = _positions(state["active"])
            images, before = _rows(state, "images", at), _rows(state, "cost", at)
            wanted = classes if at is None else classes[at]

            def cost(leaf: torch.Tensor, positions: slice) -> tuple[torch.Tensor, ...]:
                log_p = attacked.module(leaf).float().log_softmax(dim=1)
                own = log_p.gather(1, wanted[positions][:, None]).squeeze(1)
                costs = -own if self.objective == "log-posterior" else 1 - own.exp()
                if self.total_variation:
                    costs = costs + self.total_variation * compute_total_variation(leaf)
                if self.l2:
                    costs = costs + self.l2 * ((leaf - colour) / scale).square().sum(dim=(1, 2, 3))
                return costs, own

            gradient, (costs, log_posterior) = compute_gradients(cost, images, attacked.part)
            reached = log_posterior.exp() > self.threshold
            better = (costs < before) | reached
            _put(state, "best", at, torch.where(better[:, None, None, None], images, _rows(state, "best", at)))
            _put(state, "cost", at, torch.where(better, costs, before))
            since = (_rows(state, "since", at) + 1).masked_fill_(better, 0)
            _put(state, "since", at, since)
            going = (since < self.patience).logical_and_(~reached) & (step < self.iterations)
            if not bool(going.all()):
                _put(state, "active", at, going)
                images, gradient, at = images[going], gradient[going], _positions(state["active"])
            _put(state, "iterations", at, _rows(state, "iterations", at) + 1)
            if self.optimizer == "adam":
                moments = _rows(state, "mean", at), _rows(state, "square", at)
                images = step_adam(images, gradient, moments, step, self.learning_rate, _BETAS)
                _put(state, "mean", at, moments[0])
                _put(state, "square", at, moments[1])
            else:
                images = images - gradient.mul_(self.learning_rate)
            _put(state, "images", at, images.clamp_(0, 1))
            return len(images) > 0

        def finish(state: Tensors) -> InversionResult:
            return InversionResult(state["best"].cpu(), state["iterations"].cpu().numpy())

        configuration = self.model_dump(mode="json", exclude={"evaluator", "references", "classes"})
        # One evaluation more than there are iterations, so that the image after the last step counts as well.
        return InversionSearch(
            identify_search(attacked, "fredrikson", configuration, context.seed),
            start,
            advance,
            self.iterations + 1,
            finish,
        )


def _positions(active: torch.Tensor) -> torch.Tensor | None:
    """Return the positions where a mask is true; None if it is true everywhere."""
    return None if bool(active.all()) else active.nonzero().squeeze(1)


def _rows(state: Tensors, name: str, at: torch.Tensor | None) -> torch.Tensor:
    return state[name] if at is None else state[name][at]


def _put(state: Tensors, name: str, at: torch.Tensor | None, values: torch.Tensor) -> None:
    if at is None:
        state[name] = values
    else:
        state[name].index_copy_(0, at, values)


def compute_total_variation(images: torch.Tensor) -> torch.Tensor:
    """Return the sum of absolute differences between neighbouring pixels over all channels: N for N×C×H×W."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().sum(dim=(1, 2, 3))
    across = (images[..., 1:] - images[..., :-1]).abs().sum(dim=(1, 2, 3))
    return down + across


def _colour(attacked: AttackedClasses, start: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the starting colour, which is also that of the prior, and the deviation of the target's normalisation.

    Both are 1×C×1×1.
    """
    normalised = attacked.target.preprocessing
    channels = attacked.shape[0]
    level = {"black": 0.0, "grey": 0.5, "noise": 0.5, "mean": 0.0 if channels == 1 else 0.5}[start]
    colour = normalised.mean if start == "mean" and normalised.mean else (level,)

    def tensor(values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=attacked.device).view(1, -1, 1, 1)

    return tensor(colour).clamp(0, 1).expand(1, channels, 1, 1), tensor(normalised.std or (1.0,))
