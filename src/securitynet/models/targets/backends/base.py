"""`Backend`: model inputs in, raw outputs out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn

from securitynet.errors import AccessDenied

if TYPE_CHECKING:
    from securitynet.models.targets.interface import Interface


class Backend(ABC):
    """One way to get a model's raw outputs.

    Attributes:
        reference: As the user writes it, without paths of weights files.
        checksum: Hexadecimal digest of what decides the outputs.
        num_classes: Length of an output row, None until it is known from a first answer.
        channels: Channels that inputs must have, None if the backend can't tell.
        white_box: Whether the module can be handed out.
        interface: What stands between the model and those who ask it; None if nothing does.
    """

    reference: str
    checksum: str
    num_classes: int | None = None
    channels: int | None = None
    white_box: bool = False
    interface: Interface | None = None

    @abstractmethod
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Raw outputs of the model for preprocessed inputs.

        Args:
            inputs: N×C×H×W float32, on any device.

        Returns:
            N×K float32 on the CPU, before any check.
        """

    @property
    def device(self) -> torch.device:
        """Where inputs should be prepared."""
        return torch.device("cpu")

    @property
    def batch_size(self) -> int:
        """Images a batch that suit this backend."""
        return 256

    @property
    def module(self) -> nn.Module:
        """The frozen network, for backends that have one.

        Raises:
            AccessDenied: If there is none behind this backend.
        """
        raise AccessDenied(
            f"{self.reference} gives answers only; there is no network behind it that could be inspected.",
            hint="White-box attacks need the weights: load the model by a reference with --weights.",
        )

    def in_half(self) -> Backend | None:
        """The same model in bf16, or None where its arithmetic can't be chosen."""
        return None

    def embeddings(self, inputs: torch.Tensor, layer: str | None = None) -> torch.Tensor:
        """What the second-to-last layer emits for preprocessed inputs.

        Args:
            inputs: N×C×H×W float32, on any device.
            layer: Name of another layer to take instead; see `securitynet.models.targets.embeddings.finder`.

        Returns:
            N×D float32 on the CPU.

        Raises:
            AccessDenied: If there is no network behind this backend.
            ModelError: If there is no such layer, or none was found.
        """
        raise AccessDenied(
            f"{self.reference} gives answers only: it has no embeddings to show.",
            hint="Attacks on embeddings need the weights: load the model by a reference with --weights.",
        )
