"""`Backend`: model inputs in, raw outputs out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from securitynet.errors import AccessDenied
from securitynet.models.sources.base import Progress
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.targets.heads import Head
from securitynet.models.targets.interface import Interface


@dataclass(frozen=True)
class LoadOptions:
    """What a user may say about a model; None leaves it to be found out."""

    device: torch.device
    weights: Path | None = None
    normalize: str | None = None
    input_size: int | None = None
    head: Head | None = None
    num_classes: int | None = None
    weight_set: str | None = None
    allow_random: bool = False
    precision: str = "fp32"
    batch_size: int | None = None
    max_queries: int | None = None
    timeout: float = 30.0
    retries: int = 5
    cache: Path | None = None
    progress: Progress | None = None
    expected_classes: int | None = None
    output: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class OpenedModel:
    """A backend and what its source states about it.

    Attributes:
        backend: Ready to answer.
        preprocessing: That its source states; None if it states none.
        library: What a library states for its own weights, where these are somebody else's for its network.
        class_names: In the order of outputs, where they are known.
        head: That its source states.
        input_size: That its source states, where it states no normalisation.
        example_size: Height and width of images that it probably takes.
        notes: What a reader of the report should know.
        paid: Whether answers may cost something.
        recorded: Whether it can only answer for recorded images.
    """

    backend: Backend
    preprocessing: Preprocessing | None = None
    library: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    head: Head | None = None
    input_size: tuple[int, int] | None = None
    example_size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    paid: bool = False
    recorded: bool = False


class Backend(ABC):
    """One way to get a model's raw outputs.

    Attributes:
        reference: As the user writes it, without paths of weights files.
        checksum: Hexadecimal digest of what decides the outputs.
        num_classes: Length of an output row, None until it is known from a first answer.
        channels: Channels that inputs must have, None if the backend can't tell.
        white_box: Whether the module can be handed out.
        interface: What stands between the model and those who ask it; None if nothing does.
        repeats: How often each image is asked for one answer.
        charges: Whether answers may cost something.
        rounding: Most by which its arithmetic may change an output from batch to batch, as a share of the largest.
        within_process: Whether the checksum holds for this process only, so that its outputs are not stored for others.
    """

    reference: str
    checksum: str
    num_classes: int | None = None
    channels: int | None = None
    white_box: bool = False
    interface: Interface | None = None
    repeats: int = 1
    charges: bool = False
    rounding: float = 1e-3
    within_process: bool = False

    @classmethod
    def open(cls, reference: ModelReference, options: LoadOptions) -> OpenedModel:
        """Open what a reference of this backend's scheme names.

        Args:
            reference: Of the scheme that the backend's file declares.
            options: What the user says about the model.

        Raises:
            ModelError: If there is no such model, or it is damaged or of another kind.
        """
        raise NotImplementedError(f"{cls.__name__} has no scheme of its own")

    @abstractmethod
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Raw outputs of the model for preprocessed inputs.

        Args:
            inputs: N×C×H×W float32, on any device.

        Returns:
            N×K float32 on the CPU, before any check.
        """

    def fresh_outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `outputs`: computed anew, for backends that remember answers."""
        return self.outputs(inputs)

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
