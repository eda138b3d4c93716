"""Label-only, distance to the boundary: members lie farther from the decision boundary.

Choquette-Choo et al., "Label-only membership inference attacks" (2021), section 3.4; Li and Zhang, "Membership leakage
in label-only exposures" (2021). Misclassified records have distance 0.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.membership import _boundary
from securitynet.attacks.membership._label_only import NUMBERS_AT_ONCE, LabelOnlyAttack, LabelOracle, as_floats
from securitynet.datasets.ordering import shuffle, unite
from securitynet.errors import TargetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.signals import Signals
from securitynet.randomness import make_generator

MOST_STARTS = 1000
"""Number of known records among which a starting point of another class is searched."""


class LabelOnlyBoundary(LabelOnlyAttack):
    """The score is the Euclidean distance to the nearest image of another class found within a query budget.

    Attributes:
        queries: Largest number of queries per record.
    """

    costs: ClassVar[str | None] = "queries the target hundreds of times for each record of a sample"

    queries: int = Field(default=250, ge=_boundary.LEAST_QUERIES, description="Largest number of queries per record.")

    def helping(self, data: TrialData, seed: int) -> NDArray[np.int64]:
        """Return known records, which provide starting points of another class; see `LabelOnlyAttack.helping`."""
        pool = unite(data.splits.known_members, data.splits.known_non_members)
        return np.sort(pool[shuffle(len(pool), "starts", seed)[:MOST_STARTS]])

    @override
    def scores(
        self, oracle: LabelOracle, signals: Signals, helpers: Signals, data: TrialData, context: Context
    ) -> NDArray[np.float64]:
        scores = np.zeros(len(signals))
        correct = np.flatnonzero(signals.correct)
        others = data.dataset.batch(helpers.indices)
        random = make_generator(context.seed, "boundary")
        size = max(1, NUMBERS_AT_ONCE // (self.queries * others[0].numel()))
        for start in range(0, len(correct), size):
            rows = correct[start : start + size]
            images, labels = as_floats(data, signals.indices[rows]), torch.from_numpy(signals.labels[rows])
            starts = find_nearest_of_another_class(images, labels, others, torch.from_numpy(helpers.predictions))
            scores[rows] = _boundary.bound_distances(
                oracle, images, labels, starts, queries=self.queries, generator=random
            ).numpy()
            if context.progress:
                context.progress(min(start + size, len(correct)), len(correct))
        return scores


def find_nearest_of_another_class(
    images: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, predictions: torch.Tensor
) -> torch.Tensor:
    """Return, for each image, the nearest of ``others`` with another predicted class, N×C×H×W.

    Args:
        images: Images, N×C×H×W.
        labels: Their classes, N.
        others: Candidates, M×C×H×W, uint8 or in [0, 1].
        predictions: Their predicted classes, M.

    Raises:
        TargetError: If all candidates have the class of an image, so that no point beyond the boundary is known.
    """
    # A part at a time: as floats, a thousand large images would take 600 MB.
    size = max(1, NUMBERS_AT_ONCE // others[0].numel())
    parts = (others[first : first + size] for first in range(0, len(others), size))
    gaps = torch.cat([torch.cdist(images.flatten(1), _scale(part).flatten(1)) for part in parts], dim=1)
    gaps[labels[:, None] == predictions[None, :]] = torch.inf
    nearest, at = gaps.min(dim=1)
    if torch.isinf(nearest).any():
        raise TargetError(
            "The target assigns all records that the adversary knows to one class; no boundary can be found.",
            hint="Let the adversary know more records (--known), or check the target.",
        )
    return _scale(others[at])


def _scale(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images
