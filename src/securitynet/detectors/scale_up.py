"""SCALE-UP: an image whose prediction survives the amplification of its pixel values carries a trigger."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.detectors._calibrated_filter import CalibratedFilter, FittedCalibrated
from securitynet.detectors._queries import Arrays, QueryClient

FEWEST_OF_CLASS = 5
"""Smallest number of clean images from which a class's mean and deviation are estimated."""


class ScaleUp(CalibratedFilter):
    """Stops an image if the predictions of its amplified copies agree with its own more often than usual.

    Guo et al., "SCALE-UP: an efficient black-box input-level backdoor detection via analyzing scaled prediction
    consistency" (2023), section 4: the scaled prediction consistency is the share of the factors for which the image,
    multiplied and clipped at white, keeps its prediction (equation 1). In the paper's data-limited setting, which is
    this one, it is standardised by its mean and deviation over clean images of the predicted class. No overlays are
    needed.

    Attributes:
        factors: Factors of the pixel values.
    """

    factors: tuple[int, ...] = Field(default=(3, 5, 7, 9, 11), min_length=1, description="Factors of the pixel values.")

    title: ClassVar[str] = "SCALE-UP"
    costs: ClassVar[str | None] = "queries the target with several amplified copies of each of thousands of images"

    @override
    def _prepare(self, client: QueryClient, tuning: torch.Tensor, seed: int) -> FittedScaleUp:
        return FittedScaleUp(self, client)


class FittedScaleUp(FittedCalibrated):
    """SCALE-UP in front of a target.

    Args:
        settings: Configuration of the detector.
        client: Client that queries the target.
    """

    piece = 256

    def __init__(self, settings: ScaleUp, client: QueryClient) -> None:
        self.settings, self.client = settings, client
        self.columns = ("image", *(f"times {factor}" for factor in settings.factors))
        self._labels, self._consistency = np.empty(0, np.int64), np.empty(0)

    @override
    def measure(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> Arrays:
        labels, consistency = self.measure_consistency(images)
        return {"labels": labels, "consistency": consistency}

    @override
    def score(self, facts: Arrays) -> NDArray[np.float64]:
        return self._standardise(facts["labels"], facts["consistency"])

    @override
    def score_clean(self, facts: Arrays) -> NDArray[np.float64]:
        """Standardise each image by the others, as an incoming one is, or too many of those would be stopped."""
        self._labels, self._consistency = facts["labels"], facts["consistency"]
        everyone = np.arange(len(self._labels))
        return np.concatenate(
            [self._standardise(self._labels[[at]], self._consistency[[at]], everyone != at) for at in everyone]
        )

    def measure_consistency(self, images: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the predictions, N, and the share of factors that keep them, N.

        Args:
            images: N×C×H×W uint8.
        """
        labels = self.client.outputs(images).argmax(dim=1)
        agreeing = torch.zeros(len(images), dtype=torch.float64)
        for factor in self.settings.factors:
            agreeing += self.client.outputs(_amplify(images, factor)).argmax(dim=1) == labels
        return labels.numpy(), (agreeing / len(self.settings.factors)).numpy()

    @override
    def pictures(self, image: torch.Tensor, verdicts: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Return the image and its amplified copies."""
        return torch.stack([image, *(_amplify(image, factor) for factor in self.settings.factors)])

    def _standardise(
        self, labels: NDArray[np.int64], consistency: NDArray[np.float64], used: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Standardise by the clean images of the predicted class, or by those of all classes if they are few.

        Args:
            labels: Predictions, N.
            consistency: Their consistency, N.
            used: Which of the clean images to standardise by; None for all.
        """
        used = np.ones(len(self._labels), dtype=bool) if used is None else used
        scores = np.empty(len(labels))
        for label in np.unique(labels).tolist():
            own = self._consistency[used & (self._labels == label)]
            if len(own) < FEWEST_OF_CLASS:
                own = self._consistency[used]
            deviation = float(own.std()) or float(self._consistency[used].std()) or 1.0
            scores[labels == label] = (consistency[labels == label] - own.mean()) / deviation
        return scores.round(9)  # equal values must stay equal


def _amplify(images: torch.Tensor, factor: int) -> torch.Tensor:
    return (images.int() * factor).clamp(max=255).to(torch.uint8)
