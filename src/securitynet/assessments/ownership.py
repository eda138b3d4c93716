"""Is that model a copy of mine? A fingerprint of adversarial images that copies share and independent models do not.

After Lukas et al., "Deep neural network fingerprinting by conferrable adversarial examples" (2021): targeted
adversarial images of the owner's model transfer to models that were trained on its outputs more often than to models
of the same task that were trained independently. How often is measured on independent models, not assumed. The suspect
is only asked for labels, once for each image of the fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError, TargetError
from securitynet.metrics.ownership import Ownership, rank_suspect
from securitynet.models.targets.input_gradients import InputGradients, compute_margin_loss
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator

_DECAY = 1.0
_FEWEST = 20


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Images whose labels under the owner's model are unlike those of independent models.

    Attributes:
        images: N×C×H×W uint8.
        labels: What the owner's model predicts for them, N int64; never the true class.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def matches(self, suspect: Target) -> NDArray[np.bool_]:
        """Query a model with the fingerprint, and return where it predicts what the owner's model predicts, N."""
        parts = torch.split(self.images, suspect.batch_size)
        seen = torch.cat([suspect.labels(part) for part in parts])
        return np.asarray((seen == self.labels).numpy())


def make_fingerprint(
    owned: Target,
    dataset: ImageDataset,
    records: NDArray[np.int64],
    *,
    count: int = 200,
    epsilon: float = 16 / 255,
    steps: int = 20,
    seed: int = 0,
) -> Fingerprint:
    """Make targeted adversarial images of the owner's model, each towards a random wrong class.

    The momentum iterative method (Dong et al., "Boosting adversarial attacks with momentum", 2018, algorithm 1) on the
    logit margin of that class, because such images transfer. Only those that reach their class remain.

    Args:
        owned: The owner's model, under white-box access.
        dataset: Images and their true classes.
        records: Records to start from, preferably not used in training.
        count: Number of images to start from.
        epsilon: Largest change of a pixel, in [0, 1].
        steps: Steps of the method.
        seed: Seed of the choice of records and classes.

    Raises:
        ConfigurationError: If there are no records.
        TargetError: If too few images reach their class.
    """
    if not len(records):
        raise ConfigurationError("A fingerprint is made from images; there are none.", hint="Give another --split.")
    chosen = records[shuffle(len(records), "fingerprint", seed)[:count]]
    start = dataset.batch(chosen).float() / 255
    truth = torch.from_numpy(dataset.labels[chosen])
    draws = torch.randint(1, dataset.num_classes, (len(chosen),), generator=make_generator(seed, "fingerprint classes"))
    goals = (truth + draws) % dataset.num_classes
    gradients = InputGradients(owned, loss=compute_margin_loss)
    images, momentum = start.clone(), torch.zeros_like(start)
    for _ in range(steps):
        step = gradients(images, goals).gradients
        scale = step.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
        momentum = _DECAY * momentum + step / scale
        moved = images - 2.5 * epsilon / steps * momentum.sign()
        images = torch.minimum(torch.maximum(moved, start - epsilon), start + epsilon).clamp(0, 1)
    pixels = (images * 255).round().to(torch.uint8)
    seen = gradients.logits(pixels.float() / 255).argmax(dim=1).cpu()
    reached = seen == goals
    if int(reached.sum()) < _FEWEST:
        raise TargetError(
            f"Only {int(reached.sum())} of {len(chosen)} images of the fingerprint reach their class on "
            f"{owned.reference}; {_FEWEST} are needed.",
            hint="Allow larger changes (--epsilon) or give more images.",
        )
    return Fingerprint(pixels[reached], goals[reached])


def compare_with_suspect(fingerprint: Fingerprint, suspect: Target, references: Sequence[Target]) -> Ownership:
    """Compare a suspect's predictions for the fingerprint with those of independent models.

    Args:
        fingerprint: See `make_fingerprint`.
        suspect: The model in question, under any access.
        references: Models of the same task that are known to be independent: trained by others, or by the owner from
            other initial weights.
    """
    matches = fingerprint.matches(suspect)
    shares = [float(fingerprint.matches(reference).mean()) for reference in references]
    return rank_suspect(int(matches.sum()), len(matches), shares)
