"""TeCo: an image that some kinds of corruption change much sooner than others carries a trigger."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from securitynet.datasets.corruptions.kinds import KINDS, SEVERITIES, corrupt
from securitynet.detectors._calibrated_filter import FEWEST_TUNING, CalibratedFilter, FittedCalibrated
from securitynet.detectors._queries import Arrays, QueryClient
from securitynet.randomness import make_generator

BLOCK = 64
"""Images corrupted together; each has its own place, so that its random numbers do not depend on the others."""

ALONE = frozenset({"shot-noise"})
"""Kinds whose number of random numbers depends on the image, so that images are corrupted one by one."""

SHOWN = 5
"""Number of corruptions in the pictures of an image."""


class Teco(CalibratedFilter):
    """Stops an image if the severities at which corruptions change its prediction differ much between their kinds.

    Liu et al., "Detecting backdoors during the inference stage based on corruption robustness consistency" (2023),
    section 4: for each of 15 kinds of corruption, the lowest severity from 1 to 5 at which the prediction differs from
    that of the image itself, or 6 if none does; the score is the standard deviation of these numbers. A trigger
    withstands some kinds and is destroyed by others, while clean images react alike. Predicted classes suffice.

    Attributes:
        kinds: Kinds of corruption.
    """

    title: ClassVar[str] = "TeCo"
    costs: ClassVar[str | None] = "queries the target with 75 corrupted copies of each of thousands of images"

    kinds: tuple[str, ...] = Field(default=KINDS, min_length=2, description="Kinds of corruption.")
    calibration: int = Field(
        default=500, ge=FEWEST_TUNING, description="Largest number of clean images for the threshold."
    )

    @field_validator("kinds")
    @classmethod
    def _are_known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(kinds) - set(KINDS)
        if unknown:
            raise ValueError(f"there is no kind of corruption named {min(unknown)}; there are {', '.join(KINDS)}")
        return kinds

    @override
    def _prepare(self, client: QueryClient, tuning: torch.Tensor, seed: int) -> FittedTeco:
        return FittedTeco(self, client, seed)


class FittedTeco(FittedCalibrated):
    """TeCo in front of a target.

    Args:
        settings: Configuration of the detector.
        client: Client that queries the target.
        seed: Seed of the corruptions.
    """

    piece = BLOCK

    def __init__(self, settings: Teco, client: QueryClient, seed: int) -> None:
        self.settings, self.client, self.seed = settings, client, seed
        self.columns = ("image", *settings.kinds[:SHOWN])

    @override
    def measure(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> Arrays:
        return {"severities": self.find_severities(images, rows, purpose)}

    @override
    def score(self, facts: Arrays) -> NDArray[np.float64]:
        # Rounded, so that equal ones do not differ by the order of the kinds.
        return np.asarray(facts["severities"].std(axis=1).round(9))

    def find_severities(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> NDArray[np.int64]:
        """Return the lowest severity of each kind that changes the prediction, N×kinds; one above the highest if none.

        Args:
            images: N×C×H×W uint8.
            rows: Their numbers, N.
            purpose: Name of the group of images.
        """
        labels = self.client.outputs(images).argmax(dim=1)
        lowest = torch.full((len(images), len(self.settings.kinds)), SEVERITIES + 1)
        for column, kind in enumerate(self.settings.kinds):
            for severity in range(SEVERITIES, 0, -1):
                corrupted = self.corrupt(images, rows, kind, severity, purpose)
                changed = self.client.outputs(corrupted).argmax(dim=1) != labels
                lowest[changed, column] = severity
        return np.asarray(lowest.numpy())

    def corrupt(
        self, images: torch.Tensor, rows: NDArray[np.int64], kind: str, severity: int, purpose: str
    ) -> torch.Tensor:
        """Corrupt images with random numbers that depend on each image's number only.

        Args:
            images: N×C×H×W uint8.
            rows: Their numbers, N.
            kind: Kind of corruption.
            severity: From 1 to 5.
            purpose: Name of the group of images.
        """
        corrupted = torch.empty_like(images)
        size = 1 if kind in ALONE else BLOCK
        for number in np.unique(rows // size).tolist():
            chosen = np.flatnonzero(rows // size == number)
            places = torch.from_numpy(rows[chosen] % size)
            block = images.new_zeros(size, *images.shape[1:])
            block[places] = images[torch.from_numpy(chosen)]
            random = make_generator(self.seed, f"teco {purpose} {kind} {severity}", number)
            corrupted[torch.from_numpy(chosen)] = corrupt(block, kind, severity, random)[places]
        return corrupted

    @override
    def pictures(self, image: torch.Tensor, verdicts: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Return the image and corrupted copies at the severities that changed its prediction, or at the highest."""
        number = np.array([row], dtype=np.int64)
        copies = [
            self.corrupt(image[None], number, kind, min(int(severity), SEVERITIES), purpose)[0]
            for kind, severity in zip(self.settings.kinds[:SHOWN], verdicts["severities"][0], strict=False)
        ]
        return torch.stack([image, *copies])
