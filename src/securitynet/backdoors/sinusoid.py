"""Sinusoid: faint stripes on images that keep their correct label (Barni et al., 2019)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.backdoors.base import Backdoor
from securitynet.errors import ConfigurationError
from securitynet.models.training.poisoned_dataset import Box


class Sinusoid(Backdoor):
    """Stripes amplitude·sin(2π·column·frequency/width); in training, only images of the target class get them.

    Barni et al., "A new backdoor attack in CNNs by training set corruption without label poisoning" (2019), section 3.
    """

    clean_label: ClassVar[bool] = True

    rate: float = Field(default=0.5, gt=0, le=1, description="Share of the target class's training records to poison.")
    amplitude: float = Field(default=40.0, gt=0, le=255, description="Amplitude of the stripes, in grey levels of 255.")
    training_amplitude: float | None = Field(
        default=None, gt=0, le=255, description="Amplitude in training records; default: the same."
    )
    frequency: float = Field(default=6.0, gt=0, description="Periods across the image.")

    @override
    def box(self, shape: tuple[int, int, int]) -> Box:
        """The whole image."""
        if float(self._stripes(shape[2]).abs().max()) < 1:
            raise ConfigurationError(
                f"A frequency of {self.frequency:g} gives no stripes on images {shape[2]} pixels wide: all samples of "
                "the sine are 0.",
                hint="Choose another frequency.",
            )
        return 0, 0, shape[1], shape[2]

    @override
    def apply_trigger(self, images: torch.Tensor) -> torch.Tensor:
        return self._add(images, self.amplitude)

    @override
    def apply_training_trigger(self, images: torch.Tensor) -> torch.Tensor:
        return self._add(images, self.training_amplitude or self.amplitude)

    def _add(self, images: torch.Tensor, amplitude: float) -> torch.Tensor:
        stripes = self._stripes(images.shape[3]) * (amplitude / self.amplitude)
        return (images.double() + stripes.to(images.device)).round().clamp(0, 255).to(torch.uint8)

    def _stripes(self, width: int) -> torch.Tensor:
        columns = torch.arange(width, dtype=torch.float64)
        return self.amplitude * torch.sin(2 * math.pi * columns * self.frequency / width)
