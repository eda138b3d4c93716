"""Generative: the noise of a GAN is optimised until the target sees the class (Zhang et al., "The secret revealer").

Zhang et al. (2020), section 3.3, with the numbers of ML-Doctor (section 5.2): the GAN, trained on shadow data, keeps
the images natural, and its noise is moved to where the target's posterior of the class is high.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch.nn import functional

from securitynet.attacks.inversion._generative import GenerativeAttack, generate
from securitynet.attacks.inversion._search import Search, SearchResult, Tensors, gradients, identity
from securitynet.attacks.inversion._subject import Subject
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.randomness import generator


class Generative(GenerativeAttack):
    """Minimises the prior loss plus λ times the identity loss over the noise (equation 4).

    The prior loss is −log of what the discriminator takes for the probability that the image is real (theirs is a
    Wasserstein critic, ours a DCGAN); the identity loss is −log of the target's posterior of the class. Each image's
    loss counts in full, whatever the number of images.

    Attributes:
        learning_rate: Of the gradient descent on the noise.
        momentum: Nesterov's.
        weight: λ, of the identity loss.
        rounds: Steps.
        clip: The noise is kept in [−clip, clip].
    """

    costs: ClassVar[str | None] = "trains a GAN and a classifier to judge by, and optimises the GAN's noise"

    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="Of the descent on the noise.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of the descent.")
    weight: float = Field(default=100.0, ge=0, allow_inf_nan=False, description="Weight of the identity loss, lambda.")
    rounds: int = Field(default=1500, ge=1, description="Steps.")
    clip: float = Field(default=1.0, gt=0, description="The noise is kept in [-clip, clip].")

    def search(self, subject: Subject, data: TrialData, context: Context) -> Search:
        """See `InversionAttack.search`."""
        gan = self.obtain(subject, data, context)
        classes = subject.classes.to(subject.device)

        def start() -> Tensors:
            codes = torch.randn(len(classes), gan.latent, generator=generator(context.seed, "inversion codes"))
            codes = codes.to(subject.device)
            return {"codes": codes.clamp(-self.clip, self.clip), "velocity": torch.zeros_like(codes)}

        def cost(codes: torch.Tensor, positions: slice) -> tuple[torch.Tensor, ...]:
            images = gan.generator(codes)
            prior = functional.softplus(-gan.discriminator(images))
            log_p = subject.module(images).float().log_softmax(dim=1)
            return (prior - self.weight * log_p.gather(1, classes[positions][:, None]).squeeze(1),)

        def advance(state: Tensors, step: int) -> bool:
            gradient, _ = gradients(cost, state["codes"], subject.part)
            before = state["velocity"]
            state["velocity"] = self.momentum * before - self.learning_rate * gradient
            moved = state["codes"] + state["velocity"] + self.momentum * (state["velocity"] - before)
            state["codes"] = moved.clamp(-self.clip, self.clip)
            return True

        def finish(state: Tensors) -> SearchResult:
            iterations = torch.full_like(subject.classes, self.rounds).numpy()
            return SearchResult(generate(gan, state["codes"], subject.part), iterations)

        configuration = self.model_dump(mode="json", exclude={"evaluator", "references", "classes", "gan"})
        known = identity(subject, "generative", {**configuration, "gan": gan.key}, context.seed)
        return Search(known, start, advance, self.rounds, finish)
