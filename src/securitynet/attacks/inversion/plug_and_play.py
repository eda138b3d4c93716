"""Plug & Play: improves the objective, start and selection of `generative`, with the same GAN (Struppek et al., 2022).

"Plug & play attacks: towards robust and flexible model inversion attacks": latent vectors are chosen from many before
the search; the search transforms its images at random, so that patterns of a few pixels do not succeed; and the results
that the target recognises under further transformations are kept. The loss is the margin between the logit of the class
and the next highest (Yuan et al., "Pseudo label-guided model inversion attack via conditional generative adversarial
network", 2023), whose gradient does not vanish as the posterior approaches 1.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch.nn import functional
from typing_extensions import override

from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.attacks.inversion._generative import GenerativeAttack, generate
from securitynet.attacks.inversion._search import (
    InversionResult,
    InversionSearch,
    Tensors,
    compute_gradients,
    identify_search,
    step_adam,
)
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.gan import GAN
from securitynet.randomness import make_generator

_BETAS = (0.9, 0.999)
_FEW_VIEWS = 4


class PlugAndPlay(GenerativeAttack):
    """Chooses latent vectors, optimises them under random transformations, and keeps the most robust results.

    Attributes:
        pool: Number of latent vectors from which the start of each class is chosen; the same pool for all classes.
        candidates: Number of latent vectors optimised for each class, at least the number of restarts.
        rounds: Number of steps.
        learning_rate: Learning rate of Adam.
        realism: Weight of −log of the discriminator's probability that the image is real, relative to the margin.
        shift: Largest random shift, as a share of the side.
        scale: Largest random change of size, as a share.
        views: Number of random transformations under which the results are ranked.
    """

    costs: ClassVar[str | None] = "trains a GAN and an evaluation classifier, and optimises the GAN's latent vectors"

    pool: int = Field(default=2000, ge=1, description="Latent vectors from which the starts are chosen.")
    candidates: int = Field(default=10, ge=1, description="Latent vectors optimised for each class.")
    rounds: int = Field(default=70, ge=1, description="Steps.")
    learning_rate: float = Field(default=5e-2, gt=0, allow_inf_nan=False, description="Of Adam.")
    realism: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="Weight of the discriminator.")
    shift: float = Field(default=0.0625, ge=0, le=0.5, description="Largest random shift, as a share of the side.")
    scale: float = Field(default=0.1, ge=0, lt=1, description="Largest random change of size, as a share.")
    views: int = Field(default=32, ge=1, description="Random transformations under which results are ranked.")

    @model_validator(mode="after")
    def _enough(self) -> PlugAndPlay:
        if not self.restarts <= self.candidates <= self.pool:
            raise ConfigurationError(
                f"{self.restarts} restarts can't be chosen from {self.candidates} candidates out of {self.pool}.",
                hint="The pool must be the largest, then the candidates.",
            )
        return self

    @override
    def search(self, attacked: AttackedClasses, data: TrialData, context: Context) -> InversionSearch:
        gan = self.obtain(attacked, data, context)
        labels = torch.tensor(attacked.labels, device=attacked.device)
        classes = labels.repeat_interleave(self.candidates)

        def start() -> Tensors:
            codes = self._promising(attacked, gan, labels, context.seed)
            return {"codes": codes, "mean": torch.zeros_like(codes), "square": torch.zeros_like(codes)}

        def advance(state: Tensors, step: int) -> bool:
            views = self._views(len(classes), context.seed, step, attacked.device)

            def cost(codes: torch.Tensor, positions: slice) -> tuple[torch.Tensor, ...]:
                images = gan.generator(codes)
                logits = attacked.module(transform_images(images, views[positions])).float()
                costs = -compute_margins(logits, classes[positions])
                if self.realism:
                    costs = costs + self.realism * functional.softplus(-gan.discriminator(images))
                return (costs,)

            gradient, _ = compute_gradients(cost, state["codes"], attacked.part)
            moments = state["mean"], state["square"]
            state["codes"] = step_adam(state["codes"], gradient, moments, step, self.learning_rate, _BETAS)
            return True

        def finish(state: Tensors) -> InversionResult:
            robust = self._robust(attacked, gan, state["codes"], classes, context.seed)
            iterations = torch.full_like(attacked.classes, self.rounds).numpy()
            return InversionResult(generate(gan, robust, attacked.part), iterations)

        configuration = self.model_dump(mode="json", exclude={"evaluator", "references", "classes", "gan", "prior"})
        known = identify_search(attacked, "plug-and-play", {**configuration, "gan": gan.key}, context.seed)
        return InversionSearch(known, start, advance, self.rounds, finish)

    def _views(self, count: int, seed: int, step: int, device: torch.device) -> torch.Tensor:
        """Draw random transformations of N images: scale factors, and shifts in units of half the side, N×3."""
        draws = torch.rand(count, 3, generator=make_generator(seed, "inversion views", step)) * 2 - 1
        reach = torch.tensor([self.scale, 2 * self.shift, 2 * self.shift])
        return (draws * reach + torch.tensor([1.0, 0.0, 0.0])).to(device)

    @torch.no_grad()
    def _promising(self, attacked: AttackedClasses, gan: GAN, labels: torch.Tensor, seed: int) -> torch.Tensor:
        """Choose the latent vectors with the highest mean posterior of each class when transformed, L·candidates."""
        codes = torch.randn(self.pool, gan.latent, generator=make_generator(seed, "inversion pool")).to(attacked.device)
        scores = self._scores(attacked, gan, codes, _FEW_VIEWS, seed, -1)
        best = scores[:, labels].topk(self.candidates, dim=0).indices
        return codes[best.T.flatten()]

    @torch.no_grad()
    def _robust(
        self, attacked: AttackedClasses, gan: GAN, codes: torch.Tensor, classes: torch.Tensor, seed: int
    ) -> torch.Tensor:
        """Choose the latent vectors with the highest mean posterior under transformations, best first: L·restarts."""
        scores = self._scores(attacked, gan, codes, self.views, seed, self.rounds)
        own = scores.gather(1, classes[:, None]).view(-1, self.candidates)
        best = own.topk(self.restarts, dim=1).indices
        first = torch.arange(len(own), device=best.device)[:, None] * self.candidates
        return codes[(first + best).flatten()]

    def _scores(
        self, attacked: AttackedClasses, gan: GAN, codes: torch.Tensor, views: int, seed: int, step: int
    ) -> torch.Tensor:
        """Return the mean posteriors over random transformations, N×K."""
        rows = []
        drawn = [self._views(len(codes), seed, step * 1000 - number, attacked.device) for number in range(views)]
        for positions in torch.split(torch.arange(len(codes), device=codes.device), attacked.part):
            images = gan.generator(codes[positions])
            seen = [attacked.module(transform_images(images, view[positions])).float().softmax(dim=1) for view in drawn]
            rows.append(torch.stack(seen).mean(dim=0))
        return torch.cat(rows)


def compute_margins(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the logit of the class minus the largest other logit, N."""
    own = logits.gather(1, classes[:, None]).squeeze(1)
    others = logits.scatter(1, classes[:, None], -torch.inf).amax(dim=1)
    return own - others


def transform_images(images: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """Scale and shift each image differentiably; pixels outside repeat the edge.

    Args:
        images: N×C×H×W.
        views: Scale factor, horizontal shift and vertical shift, N×3; shifts are in units of half the side.
    """
    zero = torch.zeros(len(views), device=views.device)
    inverse = 1 / views[:, 0]
    rows = torch.stack([inverse, zero, -views[:, 1] * inverse, zero, inverse, -views[:, 2] * inverse], dim=1)
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
