"""Neuron noise: the margin that small changes of the neurons can give to each class; any kind of trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional
from typing_extensions import override

from securitynet.datasets.ordering import shuffle
from securitynet.detectors._class_statistics.output import ClassStatistics, find_in_all
from securitynet.detectors.base import Detector, list_clean_images
from securitynet.errors import ModelError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics.high_outliers import HighOutlier
from securitynet.models.targets.input_gradients import compute_margin_loss
from securitynet.models.targets.neuron_factors import NeuronFactors
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

BATCH = 256
"""Images per pass; gradients are summed over passes."""

STRIDE = 2.5
"""Sum of the steps of an ascent, as a share of the largest change: enough to cross its whole range."""


class NoiseMargins(ClassStatistics):
    """Mean margins of the classes under neuron noise, and what the noise adds to them, in logits: 2×R×K.

    A class is accused only if it stands out in both. Without any backdoor, a class that was more frequent in training
    has a large margin to begin with, and noise adds much to some classes.
    """

    blind_spot: ClassVar[str] = (
        "A backdoor with several targets (up to all-to-all), one that needs an image of one class, or one that "
        "the network's first layers do not carry can go unseen."
    )

    @override
    def find_outlier(self, statistics: NDArray[np.float64]) -> tuple[int, HighOutlier] | None:
        return find_in_all(statistics)


class NeuronNoise(Detector):
    """Change the neurons so that clean images of other classes become each class, and compare the margins.

    Adversarial neuron noise activates a backdoor without its trigger: Wu and Wang, "Adversarial neuron pruning purifies
    backdoored deep models" (2021), section 3, and Xu et al., "BAN: detecting backdoors activated by adversarial neuron
    noise" (NeurIPS 2024), section 3.2. The weights of a neuron are scaled by 1 + δ and its bias by 1 + ξ, with |δ| and
    |ξ| at most ``epsilon``. Both papers look for changes that raise the loss and compare the predictions; on small
    networks these collapse to one class without any backdoor. Here the changes are sought for each class, as the
    largest margin is in MM-BD. Grubbs' test is applied to the mean margin of images of other classes, and to what the
    changes add to it; a class is accused if both tests accuse it.

    The neurons are those of the batch norms, if there are any, else of the convolutions, else of the hidden linear
    layers. The images are clean records that the model was not trained on.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = NoiseMargins
    costs: ClassVar[str | None] = "optimises changes of the neurons for each class, which takes many passes"

    images: int = Field(default=120, ge=1, description="Clean images; fewer if fewer are known.")
    epsilon: float = Field(
        default=0.4, gt=0, lt=1, description="Largest relative change of weights and biases; 0.4 in the first paper."
    )
    steps: int = Field(default=15, ge=1, description="Steps of an ascent.")
    starts: int = Field(default=1, ge=1, description="Starting points: no neuron changed, then random changes.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> NoiseMargins:
        known = list_clean_images(data)
        chosen = np.sort(known[shuffle(len(known), "neuron-noise", context.seed)[: self.images]])
        images = data.dataset.batch(chosen).to(target.backend.device).float() / 255
        labels = torch.from_numpy(data.dataset.labels[chosen]).to(images.device)

        def report_progress(share: float) -> None:
            if context.progress:
                context.progress(round(1000 * share), 1000)

        margins = self.maximise_margins(target, images, labels, context.seed, report_progress)
        names = data.dataset.class_names
        shown = tuple(names[label] if label < len(names) else str(label) for label in range(margins.shape[2]))
        return NoiseMargins(margins, ("margin under neuron noise", "gain in margin by neuron noise"), shown)

    def maximise_margins(
        self,
        target: Target,
        images: torch.Tensor,
        labels: torch.Tensor,
        seed: int = 0,
        report_progress: Callable[[float], None] = lambda share: None,
    ) -> NDArray[np.float64]:
        """Return the largest mean margins, and what the changes add to them, 2 × ``starts`` × K, in logits.

        Args:
            target: The target, under white-box access.
            images: N×C×H×W in [0, 1], on the target's device.
            labels: Their classes, N.
            seed: Of the starting points.
            report_progress: Called with the share of the work that is done, in [0, 1].

        Raises:
            AccessDenied: Under black-box access.
            ModelError: If the network has no layer with neurons, or its outputs are not finite under the changes.
        """
        network = target.module
        with torch.inference_mode():
            classes = int(network(images[:1]).shape[1])
        layers = list_noisy_layers(target.backend.module)
        if not layers:
            raise ModelError(
                f"{target.reference} has no layer whose neurons can be changed.", hint="Try the detector `mm-bd`."
            )
        margins = np.full((2, self.starts, classes), np.nan)
        for start in range(self.starts):
            for label in range(classes):
                others = images[labels != label]
                if len(others):
                    random = make_generator(seed, "neuron-noise", start * classes + label) if start else None
                    margins[:, start, label] = self._ascend(network, layers, others, label, random)
                report_progress((start * classes + label + 1) / (self.starts * classes))
        if not np.isfinite(margins).all():
            raise ModelError(
                f"The margins of {target.reference} are not finite under changes of its neurons.",
                hint="Give images of at least two classes (--known), or a smaller neuron-noise.epsilon.",
            )
        return margins

    def _ascend(
        self,
        network: nn.Module,
        layers: list[nn.Module],
        images: torch.Tensor,
        label: int,
        random: torch.Generator | None,
    ) -> tuple[float, float]:
        """Change the neurons step by step; return the margin of the class, and what was added to it."""
        goals = torch.full((len(images),), label, device=images.device)
        batches = [slice(first, first + BATCH) for first in range(0, len(images), BATCH)]

        def measure_margin() -> float:
            with torch.no_grad():
                own = [-compute_margin_loss(network(images[batch]), goals[batch]) for batch in batches]
            return float(torch.cat(own).double().mean())

        before = measure_margin()
        factors = [NeuronFactors(layer, images.device) for layer in layers]
        try:
            for one in factors:
                one.mask.requires_grad_(False)
                if random is None:
                    one.delta.requires_grad_()
                    one.xi.requires_grad_()
                else:
                    one.randomise(self.epsilon, random)
            changes = [change for one in factors for change in (one.delta, one.xi)]
            for _ in range(self.steps):
                totals = [torch.zeros_like(change) for change in changes]
                for batch in batches:
                    loss = functional.cross_entropy(network(images[batch]), goals[batch], reduction="sum")
                    gradients = torch.autograd.grad(loss, changes, allow_unused=True)
                    for total, gradient in zip(totals, gradients, strict=True):
                        if gradient is not None:
                            total += gradient
                with torch.no_grad():
                    for change, total in zip(changes, totals, strict=True):
                        change.sub_(total.sign(), alpha=STRIDE * self.epsilon / self.steps)
                        change.clamp_(-self.epsilon, self.epsilon)
            after = measure_margin()
            return after, after - before
        finally:
            for one in factors:
                one.handle.remove()


def list_noisy_layers(network: nn.Module) -> list[nn.Module]:
    """The layers whose neurons are changed: batch norms, if any, else convolutions, else hidden linear layers."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]
    if norms:
        return list(norms)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    if convolutions:
        return list(convolutions)
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return list(linear[:-1])
