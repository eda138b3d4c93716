"""Generative inversion: the latent vector of a GAN is optimised until the target recognises the class.

Zhang et al., "The secret revealer" (2020), section 3.3, with the hyperparameters of ML-Doctor (section 5.2). The GAN is
trained on shadow data and keeps the images natural; its latent vector is moved to where the target's posterior of the
class is high.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
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
)
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.randomness import make_generator


class Generative(GenerativeAttack):
    """Minimises the prior loss plus λ times the identity loss over the latent vector (equation 4).

    The prior loss is −log of the discriminator's probability that the image is real (the paper uses a Wasserstein
    critic, this implementation a DCGAN); the identity loss is −log of the target's posterior of the class. The losses
    of the images are summed, so that the step of an image does not depend on how many there are.

    Attributes:
        learning_rate: Learning rate of the gradient descent.
        momentum: Nesterov momentum.
        weight: Weight λ of the identity loss.
        rounds: Number of steps.
        clip: The latent vector is clipped to [−clip, clip].
    """

    costs: ClassVar[str | None] = "trains a GAN and an evaluation classifier, and optimises the GAN's latent vectors"

    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="Learning rate of the descent.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of the descent.")
    weight: float = Field(default=100.0, ge=0, allow_inf_nan=False, description="Weight of the identity loss, lambda.")
    rounds: int = Field(default=1500, ge=1, description="Steps.")
    clip: float = Field(default=1.0, gt=0, description="The latent vector is clipped to [-clip, clip].")

    @override
    def search(self, attacked: AttackedClasses, data: TrialData, context: Context) -> InversionSearch:
        gan = self.obtain(attacked, data, context)
        classes = attacked.classes.to(attacked.device)

        def start() -> Tensors:
            codes = torch.randn(len(classes), gan.latent, generator=make_generator(context.seed, "inversion codes"))
            codes = codes.to(attacked.device)
            return {"codes": codes.clamp(-self.clip, self.clip), "velocity": torch.zeros_like(codes)}

        def cost(codes: torch.Tensor, positions: slice) -> tuple[torch.Tensor, ...]:
            images = gan.generator(codes)
            prior = functional.softplus(-gan.discriminator(images))
            log_p = attacked.module(images).float().log_softmax(dim=1)
            return (prior - self.weight * log_p.gather(1, classes[positions][:, None]).squeeze(1),)

        def advance(state: Tensors, step: int) -> bool:
            gradient, _ = compute_gradients(cost, state["codes"], attacked.part)
            before = state["velocity"]
            state["velocity"] = self.momentum * before - self.learning_rate * gradient
            moved = state["codes"] + state["velocity"] + self.momentum * (state["velocity"] - before)
            state["codes"] = moved.clamp(-self.clip, self.clip)
            return True

        def finish(state: Tensors) -> InversionResult:
            iterations = torch.full_like(attacked.classes, self.rounds).numpy()
            return InversionResult(generate(gan, state["codes"], attacked.part), iterations)

        configuration = self.model_dump(mode="json", exclude={"evaluator", "references", "classes", "gan", "prior"})
        known = identify_search(attacked, "generative", {**configuration, "gan": gan.key}, context.seed)
        return InversionSearch(known, start, advance, self.rounds, finish)
