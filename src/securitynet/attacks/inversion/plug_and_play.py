"""Plug & Play: a better objective, starts and choice than `generative`, with the same GAN (Struppek et al., 2022).

"Plug & play attacks: towards robust and flexible model inversion attacks": codes are chosen among many before the
search, the search sees its images transformed at random, so that no pattern of a few pixels passes, and of its results
those are kept that the target recognises under further transformations. The loss is the margin between the class's
logit and the next one (Yuan et al., "Pseudo label-guided model inversion attack via conditional generative adversarial
network", 2023), whose gradient does not fade as the posterior nears 1.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from securitynet.attacks.inversion._generative import GenerativeAttack, generate
from securitynet.attacks.inversion._search import Search, SearchResult, Tensors, adam, gradients, identity
from securitynet.attacks.inversion._subject import Subject
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.gan import GAN
from securitynet.randomness import generator

_BETAS = (0.9, 0.999)
_FEW_VIEWS = 4


class PlugAndPlay(GenerativeAttack):
    """Chooses codes, optimises them under random transformations, and keeps the most robust.

    Attributes:
        pool: Images of the GAN from which each class's codes are chosen; the same for all classes.
        candidates: Codes of each class that are optimised, at least as many as there are restarts.
        rounds: Steps.
        learning_rate: Of Adam.
        realism: Weight of the discriminator's −log probability that the image is real, beside the margin.
        shift: Largest random shift, as a share of the side.
        scale: Largest random change of size, as a share.
        views: Random transformations under which the results are ranked.
    """

    costs: ClassVar[str | None] = "trains a GAN and a classifier to judge by, and optimises the GAN's noise"

    pool: int = Field(default=2000, ge=1, description="Images of the GAN from which codes are chosen.")
    candidates: int = Field(default=10, ge=1, description="Codes of each class that are optimised.")
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
                f"{self.restarts} restarts can't be chosen among {self.candidates} candidates of of {self.pool}.",
                hint="The pool must be the largest, then the candidates.",
            )
        return self

    def search(self, subject: Subject, data: TrialData, context: Context) -> Search:
        """See `InversionAttack.search`."""
        gan = self.obtain(subject, data, context)
        labels = torch.tensor(subject.labels, device=subject.device)
        classes = labels.repeat_interleave(self.candidates)

        def start() -> Tensors:
            codes = self._promising(subject, gan, labels, context.seed)
            return {"codes": codes, "mean": torch.zeros_like(codes), "square": torch.zeros_like(codes)}

        def advance(state: Tensors, step: int) -> bool:
            views = self._views(len(classes), context.seed, step, subject.device)

            def cost(codes: torch.Tensor, positions: slice) -> tuple[torch.Tensor, ...]:
                images = gan.generator(codes)
                logits = subject.module(transformed(images, views[positions])).float()
                costs = -margins(logits, classes[positions])
                if self.realism:
                    costs = costs + self.realism * functional.softplus(-gan.discriminator(images))
                return (costs,)

            gradient, _ = gradients(cost, state["codes"], subject.part)
            moments = state["mean"], state["square"]
            state["codes"] = adam(state["codes"], gradient, moments, step, self.learning_rate, _BETAS)
            return True

        def finish(state: Tensors) -> SearchResult:
            kept = self._robust(subject, gan, state["codes"], classes, context.seed)
            iterations = torch.full_like(subject.classes, self.rounds).numpy()
            return SearchResult(generate(gan, kept, subject.part), iterations)

        configuration = self.model_dump(mode="json", exclude={"evaluator", "references", "classes", "gan"})
        known = identity(subject, "plug-and-play", {**configuration, "gan": gan.key}, context.seed)
        return Search(known, start, advance, self.rounds, finish)

    def _views(self, count: int, seed: int, step: int, device: torch.device) -> torch.Tensor:
        """Random transformations of N images: factors of size and shifts, N×3, in units of half the side."""
        draws = torch.rand(count, 3, generator=generator(seed, "inversion views", step)) * 2 - 1
        reach = torch.tensor([self.scale, 2 * self.shift, 2 * self.shift])
        return (draws * reach + torch.tensor([1.0, 0.0, 0.0])).to(device)

    @torch.no_grad()
    def _promising(self, subject: Subject, gan: GAN, labels: torch.Tensor, seed: int) -> torch.Tensor:
        """The codes of a pool whose transformed images have the highest mean posterior of each class, L·candidates."""
        codes = torch.randn(self.pool, gan.latent, generator=generator(seed, "inversion pool")).to(subject.device)
        scores = self._scores(subject, gan, codes, _FEW_VIEWS, seed, -1)
        best = scores[:, labels].topk(self.candidates, dim=0).indices
        return codes[best.T.flatten()]

    @torch.no_grad()
    def _robust(
        self, subject: Subject, gan: GAN, codes: torch.Tensor, classes: torch.Tensor, seed: int
    ) -> torch.Tensor:
        """The codes whose images keep the highest mean posterior under transformations, best first: L·restarts."""
        scores = self._scores(subject, gan, codes, self.views, seed, self.rounds)
        own = scores.gather(1, classes[:, None]).view(-1, self.candidates)
        best = own.topk(self.restarts, dim=1).indices
        first = torch.arange(len(own), device=best.device)[:, None] * self.candidates
        return codes[(first + best).flatten()]

    def _scores(
        self, subject: Subject, gan: GAN, codes: torch.Tensor, views: int, seed: int, step: int
    ) -> torch.Tensor:
        """Mean posteriors of codes' images over random transformations, N×K."""
        rows = []
        drawn = [self._views(len(codes), seed, step * 1000 - number, subject.device) for number in range(views)]
        for positions in torch.split(torch.arange(len(codes), device=codes.device), subject.part):
            images = gan.generator(codes[positions])
            seen = [subject.module(transformed(images, view[positions])).float().softmax(dim=1) for view in drawn]
            rows.append(torch.stack(seen).mean(dim=0))
        return torch.cat(rows)


def margins(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Logit of the class minus the largest other, N."""
    own = logits.gather(1, classes[:, None]).squeeze(1)
    others = logits.scatter(1, classes[:, None], -torch.inf).amax(dim=1)
    return own - others


def transformed(images: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """Each image scaled and shifted, its edges repeated; gradients flow.

    Args:
        images: N×C×H×W.
        views: N×3: factor of size, shift across, shift down, the shifts in units of half the side.
    """
    zero = torch.zeros(len(views), device=views.device)
    inverse = 1 / views[:, 0]
    rows = torch.stack([inverse, zero, -views[:, 1] * inverse, zero, inverse, -views[:, 2] * inverse], dim=1)
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
