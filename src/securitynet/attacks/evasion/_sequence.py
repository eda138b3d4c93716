"""The base of attacks that consist of parts, each tried on the images that withstood the previous ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._norms import ROUNDING, Norm, SmoothNorm, measure_norms
from securitynet.attacks.evasion.base import EvasionAttack, Perturbed
from securitynet.methods.oracle import Oracle
from securitynet.randomness import derive_seed


@dataclass(frozen=True, eq=False)
class AttackPart:
    """One part of an attack.

    Attributes:
        name: Name in measurements.
        search: Takes images n×C×H×W, labels n, epsilon and a seed; returns examples n×C×H×W, and the number of queries
            for each image, n, if the part queries the target as an oracle.
    """

    name: str
    search: Callable[[torch.Tensor, torch.Tensor, float, int], tuple[torch.Tensor, NDArray[np.int64] | None]]


class SequenceAttack(EvasionAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Attributes:
        norm: Norm of the perturbation.
    """

    most_together: ClassVar[int] = 32

    samples: int = Field(default=100, ge=1, description="Number of non-members to perturb.")
    epsilons: tuple[float, ...] = Field(
        default=(0.03,), min_length=1, description="Largest norms of a perturbation, for images in [0, 1]."
    )
    norm: SmoothNorm = Field(default="linf", description="Norm of the perturbation.")

    @model_validator(mode="before")
    @classmethod
    def _epsilons_of_norm(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("norm") == "l2" and "epsilons" not in values:
            return {**values, "epsilons": (0.5,)}
        return values

    @property
    @override
    def measured_in(self) -> Norm:
        return self.norm

    @abstractmethod
    def purpose(self) -> str:
        """Name of the attack in the seeds of its random numbers."""

    def run_parts(
        self,
        parts: Callable[[Oracle], Sequence[AttackPart]],
        batch: Batch,
        oracle: Oracle,
        seed: int,
        judge: Callable[[Oracle, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        vanished: NDArray[np.bool_] | None = None,
    ) -> Perturbed:
        """Run all parts at all epsilons.

        Args:
            parts: Makes the parts for an oracle.
            batch: Images.
            oracle: The oracle of the batch.
            seed: Seed of the run.
            judge: Takes the oracle, examples, images and labels, and returns whether each example evades, n.
            vanished: Stored with the result.
        """
        best, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
        by = np.full((len(self.epsilons), len(batch.labels)), -1, dtype=np.int64)
        spent = np.zeros_like(by)
        queried, examples = False, []
        tried = parts(oracle)
        for e, epsilon in enumerate(self.epsilons):
            if e:
                by[e] = by[e - 1]
            own_seed = derive_seed(seed, f"{self.purpose()} at {epsilon:g}", batch.number)
            for number, part in enumerate(tried):
                if not len(rows):
                    break
                images, labels = batch.images[rows], batch.labels[rows]
                perturbed, queries = part.search(images, labels, epsilon, own_seed)
                if queries is not None:
                    queried = True
                    spent[e, rows.numpy()] += queries
                wrong = judge(oracle, perturbed, images, labels)
                wrong &= measure_norms(perturbed - images, self.measured_in) <= epsilon * (1 + ROUNDING) + ROUNDING
                best[rows[wrong]] = perturbed[wrong].clamp(0, 1)
                by[e, rows[wrong].numpy()] = number
                rows = rows[~wrong]
            examples.append(best.clone())
        several = len(tried) > 1
        return Perturbed(
            torch.stack(examples)[None],
            spent=spent if queried else None,
            vanished=vanished,
            part=by if several else None,
        )
