"""Randomised smoothing: a certified lower bound of the robustness in L2 of the target smoothed by Gaussian noise.

Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via randomized smoothing" (2019), theorem 1 and section
3.2 (algorithm CERTIFY): where the smoothed classifier returns a class with a probability of at least p > 1/2, no
perturbation with an L2 norm below σ Φ⁻¹(p) changes its prediction. Noisy images are clipped to [0, 1], which makes the
clipping a part of the classifier that is smoothed; the theorem holds for any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy import special
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.evasion.base import choose_sample
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.methods.output import Output
from securitynet.metrics import rates
from securitynet.metrics.evasion import write_epsilon
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, Direction, Measurement, ThreatModel

NOTE = (
    "Of a majority vote of the target over Gaussian noise, not of the target itself. A network that was not trained "
    "with noise of this size gets small radii, whatever its own robustness."
)
"""What a reader must know of certified accuracies."""


@dataclass(frozen=True, eq=False)
class Certificates(Output):
    """Certified radii of N images.

    Attributes:
        indices: Records, N int64.
        labels: True classes, N int64.
        predictions: Predictions of the smoothed target, N int64; -1 where it abstains.
        radii: Certified L2 radii, N float64; 0 where it abstains.
        reported: Radii at which the certified accuracy is reported, E float64.
        sigma: Standard deviation of the noise.
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    radii: NDArray[np.float64]
    reported: NDArray[np.float64]
    sigma: float

    @property
    def headline(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the certified accuracies."""
        return tuple(f"certified-accuracy@radius={write_epsilon(radius)}" for radius in self.reported)

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "indices": self.indices,
            "labels": self.labels,
            "predictions": self.predictions,
            "radii": self.radii,
            "reported": self.reported,
            "sigma": np.asarray(self.sigma),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Certificates:
        values: dict[str, Any] = {**arrays, "sigma": float(arrays["sigma"])}
        return cls(**values)

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute the smoothed accuracy, the share of abstentions, and the certified accuracy at each radius."""
        right, n = self.predictions == self.labels, len(self.labels)

        def measure(name: str, count: int, direction: Direction) -> Measurement:
            return rates.rate(name, count, n, direction=direction, level=level)

        return [
            measure("smoothed-accuracy", int(right.sum()), Direction.HIGHER),
            measure("abstentions", int((self.predictions < 0).sum()), Direction.LOWER),
            *(
                measure(
                    f"certified-accuracy@radius={write_epsilon(radius)}",
                    int((right & (self.radii > radius)).sum()),
                    Direction.HIGHER,
                ).with_notes(NOTE)
                for radius in self.reported
            ),
        ]


class RandomizedSmoothing(Attack):
    """Queries the target with noisy versions of non-members; needs its labels only.

    Attributes:
        samples: Number of non-members, chosen at random.
        sigma: Standard deviation of the noise, for images in [0, 1].
        selection: Noisy versions of an image by which the class is chosen; the paper's n₀.
        estimation: Noisy versions by which its probability is bounded; the paper's n.
        failure: Largest probability that the radius of an image is wrong; the paper's α.
        radii: L2 radii at which the certified accuracy is reported.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    output: ClassVar[type[Output]] = Certificates
    costs: ClassVar[str | None] = "queries the target a thousand times for each image of a sample"

    samples: int = Field(default=100, ge=1, description="Number of non-members to certify.")
    sigma: float = Field(default=0.25, gt=0, allow_inf_nan=False, description="Standard deviation of the noise.")
    selection: int = Field(default=100, ge=1, description="Noisy versions that choose the class.")
    estimation: int = Field(default=1000, ge=1, description="Noisy versions that bound its probability.")
    failure: float = Field(default=0.001, gt=0, lt=1, description="Probability that the radius of an image is wrong.")
    radii: tuple[float, ...] = Field(default=(0.0, 0.25, 0.5), min_length=1, description="L2 radii to report.")

    @field_validator("radii")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= radius < float("inf") for radius in value):
            raise ValueError("each must be finite and not negative")
        return tuple(sorted(set(value)))

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Certificates:
        sample = choose_sample(target, data, self.samples, context.seed)
        labels = np.asarray(data.dataset.labels[sample], dtype=np.int64)
        predictions = np.full(len(sample), -1, dtype=np.int64)
        radii = np.zeros(len(sample))
        for number, index in enumerate(sample.tolist()):
            image = data.dataset.batch(sample[number : number + 1]).float() / 255
            oracle = Oracle(target)
            random = make_generator(context.seed, "smoothing", index)
            choice = self._vote(oracle, image, self.selection, random)
            votes = self._vote(oracle, image, self.estimation, random)
            top = int(choice.argmax())
            radius = certify(int(votes[top]) if top < len(votes) else 0, self.estimation, self.sigma, self.failure)
            if radius > 0:
                predictions[number], radii[number] = top, radius
            context.extra_queries.append(oracle.queries)
            if context.progress:
                context.progress(number + 1, len(sample))
        return Certificates(sample, labels, predictions, radii, np.asarray(self.radii), self.sigma)

    def _vote(self, oracle: Oracle, image: torch.Tensor, count: int, random: torch.Generator) -> NDArray[np.int64]:
        """Return the number of noisy versions of an image, 1×C×H×W, that the target assigns to each class."""
        most = max(1, min(count, (1 << 24) // image.numel()))
        votes = np.zeros(0, dtype=np.int64)
        for start in range(0, count, most):
            noise = torch.randn((min(most, count - start), *image.shape[1:]), generator=random)
            drawn = np.bincount(oracle.labels((image + self.sigma * noise).clamp(0, 1)).numpy(), minlength=len(votes))
            votes = np.pad(votes, (0, len(drawn) - len(votes))) + drawn
        return votes


def certify(votes: int, draws: int, sigma: float, failure: float) -> float:
    """Return the L2 radius within which the prediction of the smoothed target is certain; 0 where it abstains.

    Args:
        votes: Noisy versions that got the class.
        draws: All noisy versions; independent of those that chose the class.
        sigma: Standard deviation of the noise.
        failure: Largest probability that the radius is too large.
    """
    # One side of the interval of level 1 - 2 * failure misses with a probability of at most ``failure``.
    low = float(rates.compute_clopper_pearson(votes, draws, 1 - 2 * failure)[0])
    return max(sigma * float(special.ndtri(low)), 0.0) if low > 0.5 else 0.0
