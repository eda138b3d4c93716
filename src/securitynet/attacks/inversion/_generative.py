"""The base class of attacks with a GAN: its settings, its training on the shadow-train part, and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.attacks.inversion._given_gan import GivenGAN
from securitynet.attacks.inversion.base import InversionAttack, Reconstructions
from securitynet.errors import SplitError
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.gan import GAN, GANTraining, obtain_gan
from securitynet.models.gan.store import load_gan, make_gan_record
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed
from securitynet.records import Access, Auxiliary, ThreatModel


class GenerativeAttack(InversionAttack):
    """An inversion attack that searches the latent space of a GAN trained on the shadow-train part.

    Attributes:
        gan: How the GAN is trained.
        prior: A GAN that was trained before, on public images; none is trained then, and shadow data is not used.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.SHADOW),
    )

    gan: GANTraining = Field(default=GANTraining(), description="How the GAN is trained.")
    # Left out of the trial id at its default: trials without it keep their ids.
    prior: GivenGAN | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Folder of a GAN that was trained before, on public images; none is trained then.",
    )

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Reconstructions:
        if self.prior is None:
            _shadow_records(data)  # raises before long work
        else:
            self._obtain(data, context)
        return super().run(target, data, context)

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """List the evaluation classifier and the GAN, which does not depend on the target."""
        if self.prior is not None:
            return super().shared_work(target, data, context)
        record = make_gan_record(data.dataset, _shadow_records(data), self.gan, derive_seed(context.seed, "GAN"))

        def run(progress: Progress | None) -> None:
            self._obtain(data, replace(context, progress=progress))

        return [*super().shared_work(target, data, context), SharedWork(f"gans/{record.key}", "the GAN", run)]

    def obtain(self, attacked: AttackedClasses, data: TrialData, context: Context) -> GAN:
        """Return the GAN on the target's device; targets on the same data share it.

        Args:
            attacked: The target and the requested classes.
            data: Data of the trial.
            context: Seed, cache and device.

        Raises:
            SplitError: If the split has no shadow data.
            SecurityNetError: See `securitynet.models.gan.obtain_gan`.
        """
        gan = self._obtain(data, context)
        gan.generator.to(attacked.device)
        gan.discriminator.to(attacked.device)
        return gan

    def _obtain(self, data: TrialData, context: Context) -> GAN:
        if self.prior is not None:
            return load_gan(self.prior.folder, data.dataset.image_shape, device=context.device)
        return obtain_gan(
            data.dataset,
            _shadow_records(data),
            self.gan,
            seed=derive_seed(context.seed, "GAN"),
            cache=context.cache,
            device=context.device,
            progress=context.progress,
        )


def generate(gan: GAN, codes: torch.Tensor, part: int) -> torch.Tensor:
    """Generate images from latent vectors, N×C×H×W in [0, 1] on the CPU.

    Args:
        gan: The GAN.
        codes: Latent vectors, N×D.
        part: Number of images per batch.
    """
    with torch.inference_mode():
        images = torch.cat([gan.generator(rows).cpu() for rows in torch.split(codes, part)])
    return images.clone()


def _shadow_records(data: TrialData) -> NDArray[np.int64]:
    """Return the records that a GAN is trained on. Raises `SplitError` if there are none."""
    if not len(data.splits.shadow_train):
        raise SplitError(
            f"The {data.splits.name} split has no shadow data to train a GAN on.", hint="Use --split four-way."
        )
    return data.splits.shadow_train
