"""The trainer of DCGANs. Resumed trainings give bit-identical results on a CPU: randomness is derived per step."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from securitynet.devices import use_deterministic_kernels
from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.gan.networks import Discriminator, GANGenerator
from securitynet.models.gan.options import GANTraining
from securitynet.models.gan.previews import write_grid
from securitynet.models.training.batches import Feed
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState
from securitynet.randomness import derive_seed, isolate_random_state, make_generator
from securitynet.records import Record

PREVIEW_ROWS = 8
"""Rows, and columns, of a sample grid."""

_CALIBRATION_BATCHES = 16
_CHECK_EVERY = 50

Steps = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class GANHistory(Record):
    """How the training went, at up to a hundred points.

    Attributes:
        step: Steps done at each point.
        discriminator_loss: Loss of the discriminator on the batch of that step.
        generator_loss: Loss of the generator on the batch of that step.
        seconds: Time of all steps in seconds, including those before an interruption.
    """

    step: tuple[int, ...] = ()
    discriminator_loss: tuple[float, ...] = ()
    generator_loss: tuple[float, ...] = ()
    seconds: float = 0.0


def build_networks(
    training: GANTraining, channels: int, size: int | tuple[int, int], seed: int
) -> tuple[GANGenerator, Discriminator]:
    """Build both networks with initial weights that the seed determines; the global random state is restored.

    Args:
        training: How the networks are built.
        channels: 1 or 3.
        size: Height and width of the images in pixels, or both if they differ.
        seed: Seed of the initial weights.
    """
    with isolate_random_state():
        torch.manual_seed(derive_seed(seed, "initial weights of the GAN"))
        made = GANGenerator(training.latent, channels, size, training.width)
        return made, Discriminator(channels, size, training.width)


def draw_noise(training: GANTraining, count: int, seed: int, purpose: str, step: int = 0) -> torch.Tensor:
    """Draw standard normal noise, count×latent, on the CPU.

    Args:
        training: States the dimensions of the noise.
        count: Number of rows.
        seed: Seed of all randomness.
        purpose: Name of the use, so that different uses get different noise.
        step: Number of the step, likewise.
    """
    return torch.randn(count, training.latent, generator=make_generator(seed, purpose, step))


def train_gan(
    networks: tuple[GANGenerator, Discriminator],
    feed: Feed,
    training: GANTraining,
    seed: int,
    device: torch.device,
    *,
    checkpoint: CheckpointFile | None = None,
    fingerprint: str = "",
    previews: Path | None = None,
    progress: Steps | None = None,
) -> tuple[GANGenerator, GANHistory]:
    """Train both networks in place; the discriminator is left in evaluation mode.

    Each step updates the discriminator once, on real and on generated images (in separate batches, for the batch
    norms), and the generator once, with the non-saturating loss (Radford et al., 2016, section 4; Goodfellow et al.,
    2014, section 3).

    Args:
        networks: Generator and discriminator with their initial weights.
        feed: The real images.
        training: How to train.
        seed: Seed of all randomness.
        device: Where to train.
        checkpoint: File to store the state in and to resume from.
        fingerprint: Digest of everything that determines the run; a checkpoint with another one is not used.
        previews: Folder for sample grids; None makes none.
        progress: Called after each step with (steps done, total steps).

    Returns:
        The final generator (the running average, in evaluation mode, with recalibrated batch norms) and the history.

    Raises:
        ConfigurationError: If there are fewer than two images.
        ModelError: If a loss is not finite.
    """
    if len(feed) < 2:
        raise ConfigurationError(f"{len(feed)} images are too few to train a GAN on.")
    with isolate_random_state(), torch.inference_mode(False), torch.enable_grad(), use_deterministic_kernels(device):
        run = _Run(networks, feed, training, seed, device)
        if checkpoint and (state := checkpoint.read(fingerprint)):
            run.restore(state)
            checkpoint.note(f"Resumed after step {run.done} of {training.steps}.")
        shown = {round(training.steps * (n + 1) / training.previews) for n in range(training.previews)}
        while run.done < training.steps:
            run.step()
            finished = run.done == training.steps
            if previews is not None and run.done in shown and not finished:
                run.preview(previews, run.averaged)
            if checkpoint and (finished or checkpoint.due()):
                checkpoint.write(run.state(fingerprint))
            if progress:
                progress(run.done, training.steps)
        made = run.calibrated()
        if previews is not None and training.previews:
            run.preview(previews, made)
    networks[1].eval()
    return made, run.history


class _Run:
    """A training in progress."""

    def __init__(
        self,
        networks: tuple[GANGenerator, Discriminator],
        feed: Feed,
        training: GANTraining,
        seed: int,
        device: torch.device,
    ) -> None:
        self.maker, self.judge = networks[0].to(device).train(), networks[1].to(device).train()
        self.averaged = copy.deepcopy(networks[0]).to(device).requires_grad_(False)
        self.feed, self.training, self.seed, self.device = feed, training, seed, device
        self.batch = min(training.batch_size, len(feed))
        rates = {"lr": training.learning_rate, "betas": (training.momentum, 0.999)}
        self.optimizers = {
            "generator": torch.optim.Adam(self.maker.parameters(), **rates),  # type: ignore[arg-type]
            "discriminator": torch.optim.Adam(self.judge.parameters(), **rates),  # type: ignore[arg-type]
        }
        self.size = networks[0].size
        self.done = 0
        self.history = GANHistory()
        self._order: tuple[int, torch.Tensor] | None = None

    def step(self) -> None:
        """Update both networks once."""
        started = time.perf_counter()
        draws = make_generator(self.seed, "GAN step", self.done)
        made = self.maker(torch.randn(self.batch, self.training.latent, generator=draws).to(self.device))
        real = self.feed.fetch(self._next_records())
        real = real.float() / 255 if real.dtype == torch.uint8 else real.float()
        corners = torch.randint(0, 2 * self._reach + 1, (3, 2), generator=draws).tolist()
        truths = self.judge(self._shifted(real, corners[0]))
        forgeries = self.judge(self._shifted(made.detach(), corners[1]))
        certain = torch.full_like(truths, 1 - self.training.smoothing)
        judged = functional.binary_cross_entropy_with_logits(truths, certain) + functional.softplus(forgeries).mean()
        self._update("discriminator", judged)
        self.judge.requires_grad_(False)  # gradients of its weights are not needed
        fooled = functional.softplus(-self.judge(self._shifted(made, corners[2]))).mean()
        self._update("generator", fooled)
        self.judge.requires_grad_(True)
        self.done += 1
        self._average()
        seconds = self.history.seconds + time.perf_counter() - started
        self.history = self.history.model_copy(update={"seconds": seconds})
        if self.done % _CHECK_EVERY == 0 or self.done == self.training.steps:
            self._record(judged.item(), fooled.item())

    def calibrated(self) -> GANGenerator:
        """The averaged generator, with the statistics of its batch norms measured for its own weights."""
        made = copy.deepcopy(self.averaged)
        norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # plain mean over all batches
        made.train()
        with torch.no_grad():
            for number in range(_CALIBRATION_BATCHES):
                made(
                    draw_noise(self.training, self.training.batch_size, self.seed, "calibration", number).to(
                        self.device
                    )
                )
        return made.eval()

    def preview(self, folder: Path, maker: GANGenerator) -> None:
        """Write a grid of generated images for noise that is the same each time."""
        sampled = draw_noise(self.training, PREVIEW_ROWS**2, self.seed, "preview").to(self.device)
        training = maker.training
        maker.eval()
        with torch.no_grad():
            write_grid(folder / f"step-{self.done:06d}.png", maker(sampled), PREVIEW_ROWS)
        maker.train(training)

    def state(self, fingerprint: str) -> TrainingState:
        """Everything that is needed to resume from here."""
        modules = {"generator": self.maker, "discriminator": self.judge, "averaged": self.averaged}
        return TrainingState(
            fingerprint,
            self.done,
            {name: module.state_dict() for name, module in modules.items()},
            {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            self.history.model_dump_json(),
        )

    def restore(self, state: TrainingState) -> None:
        """Resume from a state."""
        for name, module in {"generator": self.maker, "discriminator": self.judge, "averaged": self.averaged}.items():
            module.load_state_dict(state.module[name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state.optimizer[name])
        self.done = state.epochs_done
        self.history = GANHistory.model_validate(json.loads(state.history))

    @property
    def _reach(self) -> int:
        return int(self.training.shift * self.size)

    def _shifted(self, images: torch.Tensor, corner: list[int]) -> torch.Tensor:
        """All images of a batch shifted alike, edges repeated, with gradients (Zhao et al., 2020, DiffAugment)."""
        if not self._reach:
            return images
        height, width = images.shape[-2:]
        padded = functional.pad(images, (self._reach,) * 4, mode="replicate")
        return padded[..., corner[0] : corner[0] + height, corner[1] : corner[1] + width]

    def _next_records(self) -> torch.Tensor:
        """Positions of this step's real images: epochs in random orders, without incomplete batches."""
        epoch, place = divmod(self.done, len(self.feed) // self.batch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, torch.randperm(len(self.feed), generator=make_generator(self.seed, "GAN order", epoch))
        return self._order[1][place * self.batch : (place + 1) * self.batch]

    def _update(self, name: str, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.no_grad()
    def _average(self) -> None:
        # At first the average forgets faster; otherwise it would contain the initial weights for a thousand steps.
        keep = min(self.training.average, self.done / (self.done + 10)) if self.training.average else 0.0
        for average, current in zip(self.averaged.parameters(), self.maker.parameters(), strict=True):
            average.lerp_(current, 1 - keep)
        for buffer, latest in zip(self.averaged.buffers(), self.maker.buffers(), strict=True):
            buffer.copy_(latest)

    def _record(self, judged: float, fooled: float) -> None:
        if not (torch.isfinite(torch.tensor([judged, fooled])).all()):
            raise ModelError(
                f"The training of the GAN diverged by step {self.done}: a loss is not finite.",
                hint="Lower its learning rate.",
            )
        spacing = max(_CHECK_EVERY, self.training.steps // 100)
        if self.done % spacing and self.done != self.training.steps:
            return
        old = self.history
        self.history = old.model_copy(
            update={
                "step": (*old.step, self.done),
                "discriminator_loss": (*old.discriminator_loss, round(judged, 4)),
                "generator_loss": (*old.generator_loss, round(fooled, 4)),
            }
        )
