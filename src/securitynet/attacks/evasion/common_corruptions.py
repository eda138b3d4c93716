"""Common corruptions: accuracy under noise, blur, weather and digital artefacts, which need no adversary.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations" (2019): 15
kinds at 5 severities, computed from their definitions; see `securitynet.datasets.corruptions.kinds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.evasion.base import choose_sample
from securitynet.datasets.corruptions.kinds import KINDS, SEVERITIES, corrupt
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.methods.output import Output
from securitynet.metrics import rates
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, Direction, Measurement, ThreatModel

FROST = "Frost is generated, not photographed as in the published sets; its accuracy is not comparable with theirs."
"""Note of the measurements that include frost."""


@dataclass(frozen=True, eq=False)
class CorruptedPredictions(Output):
    """Predictions for N images, corrupted by K kinds at S severities.

    Attributes:
        indices: Records, N int64.
        labels: True classes, N int64.
        clean: Predictions for the images as they are, N int64.
        corrupted: Predictions for the corrupted images, K×S×N int64.
        kinds: Names of the kinds, K.
    """

    headline: ClassVar[tuple[str, ...]] = ("mean-corruption-accuracy", "corruption-drop")

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean: NDArray[np.int64]
    corrupted: NDArray[np.int64]
    kinds: tuple[str, ...]

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "indices": self.indices,
            "labels": self.labels,
            "clean": self.clean,
            "corrupted": self.corrupted,
            "kinds": np.asarray(self.kinds, dtype=np.str_),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> CorruptedPredictions:
        values: dict[str, Any] = {**arrays, "kinds": tuple(map(str, arrays["kinds"]))}
        return cls(**values)

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Compute mean accuracies: over all corruptions, of each kind over its severities, of each severity over kinds.

        Intervals are those of images drawn anew; the corruptions are fixed.
        """
        right, clean = self.corrupted == self.labels, self.clean == self.labels
        notes = [FROST] if "frost" in self.kinds else []
        accuracy = rates.rate("clean-accuracy", int(clean.sum()), len(clean), direction=Direction.HIGHER, level=level)
        shares = right.reshape(-1, right.shape[-1]).mean(axis=0)
        low, high = map(float, rates.compute_bounded_mean(clean - shares, (-1.0, 1.0), level))
        drop = float((clean - shares).mean())
        return [
            accuracy,
            _average("mean-corruption-accuracy", right, level).with_notes(*notes),
            Measurement(
                name="corruption-drop",
                value=drop,
                low=min(low, drop),
                high=max(high, drop),
                level=level,
                n=len(clean),
                direction=Direction.LOWER,
                method=rates.BOUNDED_MEAN,
                note="Clean accuracy minus mean accuracy under corruptions, on the same images.",
            ).with_notes(*notes),
            *(
                _average(f"{kind}.corruption-accuracy", right[number], level).with_notes(
                    *(notes if kind == "frost" else ())
                )
                for number, kind in enumerate(self.kinds)
            ),
            *(
                _average(f"corruption-accuracy@severity={severity + 1}", right[:, severity], level)
                for severity in range(right.shape[1])
            ),
        ]


class CommonCorruptions(Attack):
    """Queries the target with corrupted versions of non-members.

    Attributes:
        samples: Number of non-members, chosen at random; with one seed, the same as those of other evasion attacks.
        kinds: Kinds of corruption.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    output: ClassVar[type[Output]] = CorruptedPredictions
    costs: ClassVar[str | None] = "queries the target with 75 versions of each image of a sample"

    samples: int = Field(default=500, ge=1, description="Number of non-members to corrupt.")
    kinds: tuple[str, ...] = Field(default=KINDS, min_length=1, description="Kinds of corruption.")

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [kind for kind in value if kind not in KINDS]
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(KINDS)}")
        return tuple(kind for kind in KINDS if kind in value)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> CorruptedPredictions:
        sample = choose_sample(target, data, self.samples, context.seed)
        signals = context.signals(target, data, sample)
        corrupted = np.empty((len(self.kinds), SEVERITIES, len(sample)), dtype=np.int64)
        size = max(1, min(256, (1 << 24) // int(np.prod(data.dataset.image_shape))))
        for start in range(0, len(sample), size):
            part = slice(start, start + size)
            images = data.dataset.batch(sample[part])
            oracle = Oracle(target, [images])
            for k, kind in enumerate(self.kinds):
                for severity in range(SEVERITIES):
                    random = make_generator(context.seed, f"{kind} {severity + 1}", start)
                    changed = corrupt(images, kind, severity + 1, random)
                    corrupted[k, severity, part] = oracle.labels(changed.float() / 255).numpy()
            context.extra_queries.append(oracle.queries)
            if context.progress:
                context.progress(min(start + size, len(sample)), len(sample))
        return CorruptedPredictions(sample, signals.labels, signals.predictions, corrupted, self.kinds)


def _average(name: str, right: NDArray[np.bool_], level: float) -> Measurement:
    """The mean of the images' shares of correct predictions, ...×N."""
    shares = right.reshape(-1, right.shape[-1]).mean(axis=0)
    low, high = map(float, rates.compute_bounded_mean(shares, (0.0, 1.0), level))
    value = float(shares.mean())
    return Measurement(
        name=name,
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        n=len(shares),
        direction=Direction.HIGHER,
        method=rates.BOUNDED_MEAN,
    )
