"""Sparse-RS: a random search for few pixels to replace, with black-box access and a query budget (L0).

Croce, Andriushchenko, Singh, Flammarion and Hein, "Sparse-RS: a versatile framework for query-efficient sparse
black-box adversarial attacks" (2022), section 4.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.evasion._batch import Batch
from securitynet.attacks.evasion._few_pixels import count_pixels, describe_empty
from securitynet.attacks.evasion._norms import Norm
from securitynet.attacks.evasion._random_targets import is_averaged
from securitynet.attacks.evasion.base import EvasionAttack, Perturbed, Perturber
from securitynet.errors import AccessDenied
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.models.targets.input_gradients import compute_margin_loss
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator
from securitynet.records import Access, Auxiliary, ThreatModel

SCHEDULE = ((0, 1), (50, 2), (200, 4), (500, 5), (1000, 6), (2000, 8), (4000, 10), (6000, 12), (8000, 15), (10000, 20))
"""Divisors of the first share of replaced pixels, by the last query that each applies to, of 10,000 queries."""


class SparseRs(EvasionAttack):
    """Perturbs correctly classified images only. An example that evades at one epsilon is reused for the larger ones.

    Epsilon is a share of the image's pixels: 0.02 is 20 pixels of 32×32. A chosen pixel may take any value; the search
    draws corners of the colour cube.

    Attributes:
        queries: Largest number of queries per image and epsilon, the one that confirms the result included.
        start: Share of the chosen pixels that the first steps replace; the paper's α.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    costs: ClassVar[str | None] = "queries the target up to a thousand times for each image of a sample"
    most_together: ClassVar[int] = 64

    samples: int = Field(default=100, ge=1, description="Number of non-members to perturb.")
    epsilons: tuple[float, ...] = Field(
        default=(0.02, 0.05), min_length=1, description="Largest shares of an image's pixels that change."
    )
    queries: int = Field(default=1000, ge=2, description="Largest number of queries per image and epsilon.")
    start: float = Field(default=0.3, gt=0, le=1, description="Share of the chosen pixels that first steps replace.")

    @property
    @override
    def measured_in(self) -> Norm:
        return "l0"

    @override
    def prepare(self, target: Target, data: TrialData, context: Context) -> Perturber:
        if target.head == "labels":
            raise AccessDenied(
                f"{target.reference} returns labels only; sparse-rs needs posteriors.",
                hint="Use fgsm-transfer, which needs no outputs.",
            )
        _, height, width = data.dataset.image_shape

        def perturb(batch: Batch, oracle: Oracle) -> Perturbed:
            best, rows = batch.images.clone(), torch.nonzero(batch.correct).flatten()
            spent = np.zeros((len(self.epsilons), len(batch.labels)), dtype=np.int64)
            examples = []
            for e, epsilon in enumerate(self.epsilons):
                pixels = count_pixels(epsilon, height, width)
                if len(rows) and pixels:
                    random = make_generator(context.seed, f"sparse-rs at {epsilon:g}", batch.number)
                    changed, wrong, count = self._search(oracle, batch.images[rows], batch.labels[rows], pixels, random)
                    if is_averaged(target) and bool(wrong.any()):  # a single output of a random target may be chance
                        wrong[wrong.clone()] = oracle.labels(changed[wrong]) != batch.labels[rows][wrong]
                    spent[e, rows.numpy()] = count
                    best[rows[wrong]] = changed[wrong]
                    rows = rows[~wrong]
                examples.append(best.clone())
            return Perturbed(torch.stack(examples)[None], spent=spent)

        return Perturber(perturb, notes=describe_empty(self.epsilons, height, width))

    def _search(
        self, oracle: Oracle, images: torch.Tensor, labels: torch.Tensor, pixels: int, random: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]:
        """Return the best points, whether each is misclassified, and the number of queries of each image."""
        n, channels, height, width = images.shape
        total = height * width
        flat = images.flatten(2)
        chosen = torch.zeros(n, total, dtype=torch.bool)
        chosen.scatter_(1, torch.rand(n, total, generator=random).topk(pixels, dim=1).indices, True)
        colours = torch.randint(0, 2, (n, channels, total), generator=random).float()
        best = torch.full((n,), -torch.inf)
        count, rows = np.zeros(n, dtype=np.int64), torch.arange(n)
        for query in range(self.queries - 1):
            moved, new_colours = chosen[rows], colours[rows]
            if query:
                swap = min(self._swap(query, pixels), total - pixels)
                scores = torch.rand(2, len(rows), total, generator=random)
                leaving = scores[0].masked_fill(~moved, -1).topk(swap, dim=1).indices if swap else None
                entering = scores[1].masked_fill(moved, -1).topk(swap, dim=1).indices if swap else None
                drawn = torch.randint(0, 2, new_colours.shape, generator=random).float()
                if leaving is None or entering is None:  # all pixels are chosen already: draw colours anew
                    new_colours = torch.where(scores[0][:, None] < self.start, drawn, new_colours)
                else:
                    moved = moved.scatter(1, leaving, False).scatter(1, entering, True)
                    fresh = torch.zeros_like(moved).scatter(1, entering, True)
                    new_colours = torch.where(fresh[:, None], drawn, new_colours)
            tried = torch.where(moved[:, None], new_colours, flat[rows]).view(len(rows), channels, height, width)
            margins = compute_margin_loss(oracle.logits(tried), labels[rows])
            count[rows.numpy()] += 1
            better = margins > best[rows]
            at = rows[better]
            chosen[at], colours[at], best[at] = moved[better], new_colours[better], margins[better]
            rows = rows[best[rows] <= 0]
            if not len(rows):
                break
        changed = torch.where(chosen[:, None], colours, flat).view_as(images)
        wrong = best > 0
        count[wrong.numpy()] += 1  # the query by which the result is judged
        return changed, wrong, count

    def _swap(self, query: int, pixels: int) -> int:
        of_ten_thousand = query / self.queries * 10000
        divisor = next(d for last, d in SCHEDULE if of_ten_thousand <= last)
        return max(round(self.start / divisor * pixels), 1)
