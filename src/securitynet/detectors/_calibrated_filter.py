"""The base of input filters whose threshold is a quantile of the scores of clean images."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.detectors._filters import InputFilter
from securitynet.detectors._fitted_filter import CleanImages, FittedFilter, check_enough
from securitynet.detectors._pieces import examine_in_pieces
from securitynet.detectors._queries import Arrays, QueryClient
from securitynet.metrics import filtering
from securitynet.models.targets.signals import Progress

FEWEST_TUNING = 10
"""Smallest number of clean images for a threshold."""


class CalibratedFilter(InputFilter):
    """An input filter that stops images with a higher score than almost all clean ones.

    Class attributes:
        title: Its name in messages.

    Attributes:
        false_rejection_rate: Share of clean images that may be stopped, for which the threshold is chosen.
        calibration: Largest number of clean images, besides those judged, from which the threshold is chosen.
    """

    title: ClassVar[str]

    false_rejection_rate: float = Field(
        default=0.05, gt=0, lt=1, description="Share of clean images that may be stopped."
    )
    calibration: int = Field(
        default=2000, ge=FEWEST_TUNING, description="Largest number of clean images for the threshold."
    )

    @property
    @override
    def tuning_images(self) -> int:
        return self.calibration

    @abstractmethod
    def _prepare(self, client: QueryClient, tuning: torch.Tensor, seed: int) -> FittedCalibrated:
        """Return the filter for a target, before its threshold is chosen by ``tuning``, N×C×H×W uint8."""

    @final
    @override
    def fitted(
        self,
        client: QueryClient,
        clean: CleanImages,
        seed: int = 0,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> FittedCalibrated:
        check_enough(clean.tuning, FEWEST_TUNING, f"The threshold of {self.title}")
        fitted = self._prepare(client, clean.tuning, seed)
        report_progress = progress or (lambda done, total: None)
        facts = examine_in_pieces(
            lambda images, rows: fitted.measure(images, rows, "calibration"),
            clean.tuning,
            "calibration",
            client,
            folder,
            report_progress,
            size=fitted.piece,
        )
        fitted.calibration = fitted.score_clean(facts)
        bound = filtering.choose_low_threshold(-fitted.calibration, self.false_rejection_rate, "quantile")
        fitted.threshold, fitted.nominal = -bound.value, self.false_rejection_rate
        return fitted


class FittedCalibrated(FittedFilter):
    """A calibrated filter in front of a target."""

    @abstractmethod
    def measure(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> Arrays:
        """Query the target for what the scores follow from, with one row per image.

        Args:
            images: Images, N×C×H×W uint8.
            rows: Their numbers, N; randomness depends on these and on the purpose.
            purpose: Name of the group of images.
        """

    @abstractmethod
    def score(self, facts: Arrays) -> NDArray[np.float64]:
        """Return the scores of incoming images, N, from what `measure` returned for them."""

    def score_clean(self, facts: Arrays) -> NDArray[np.float64]:
        """Return the scores of the clean images by which the threshold is chosen, N."""
        return self.score(facts)

    @override
    def examine(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> Arrays:
        facts = self.measure(images, rows, purpose)
        scores = self.score(facts)
        return {**facts, "scores": scores, "flagged": scores > self.threshold}
