"""`Backend`: model inputs in, raw outputs out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from securitynet.errors import AccessDenied, ModelError
from securitynet.models.sources.base import Progress
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.targets.heads import Head
from securitynet.models.targets.interface import Interface


@dataclass(frozen=True)
class LoadOptions:
    """What the user states about a model; None leaves it to be determined.

    Attributes:
        device: Device for networks.
        weights: File of weights for a network.
        normalize: Normalisation, as ``--normalize`` takes it.
        input_size: Height and width in pixels to which images are resized.
        head: Kind of the model's outputs.
        num_classes: Number of classes.
        weight_set: Which set of weights to use, if the file has several.
        allow_random: Whether to average the outputs of a model that is not deterministic.
        precision: ``fp32`` or ``bf16``.
        batch_size: Images per batch.
        max_queries: Largest number of distinct images to send to an endpoint.
        timeout: Seconds to wait for a response of an endpoint.
        retries: Number of times that a failed request is repeated.
        cache: Cache folder; None for the user's.
        progress: Called with (bytes done, total bytes) during downloads.
        expected_classes: Number of classes of the dataset, if one is given.
        output: Name of the output that holds the class scores.
        trust: Whether code in the model's file may run.
        checksum: Digest that the weights must have; None if none is known.
    """

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
    checksum: str | None = None


@dataclass(frozen=True)
class OpenedModel:
    """A backend, and what its source states about the model.

    Attributes:
        backend: The backend, ready to be queried.
        preprocessing: Preprocessing that the source states; None if it states none.
        library: Preprocessing that a library states for its own weights, if other weights are loaded into its network.
        class_names: Names in the order of the outputs, if known.
        head: Kind of the outputs that the source states.
        input_size: Input size that the source states without a normalisation.
        example_size: Height and width of images that the model probably accepts.
        notes: Remarks for the reader of the report.
        paid: Whether queries may cost money.
        recorded: Whether only outputs of recorded images are available.
        checksum: Digest that was stated for the weights, and that they have; None if none was stated.
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
    checksum: str | None = None


class Backend(ABC):
    """One way to obtain a model's raw outputs.

    Attributes:
        reference: Reference as the user writes it, without paths of weights files.
        checksum: Hexadecimal digest of everything that determines the outputs.
        num_classes: Length of an output row; None until the first outputs show it.
        channels: Channels that inputs must have; None if unknown.
        white_box: Whether the module can be handed out.
        interface: Interface that hides part of the outputs; None if there is none.
        repeats: Number of times that each image is sent for one output.
        charges: Whether queries may cost money.
        architecture: What networks like this one are built from (`securitynet.models.training.trainable`); None if
            unknown.
        weights: The file of weights that a user or a catalog's entry names; None if there is none.
        rounding: Largest change of an output between batches that its arithmetic may cause, relative to the largest
            output.
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
    architecture: str | None = None
    weights: Path | None = None
    rounding: float = 1e-3
    within_process: bool = False

    @classmethod
    def open(cls, reference: ModelReference, options: LoadOptions) -> OpenedModel:
        """Open the model that a reference of this backend's scheme names.

        Args:
            reference: A reference with the scheme that the backend's file declares.
            options: What the user states about the model.

        Raises:
            ModelError: If there is no such model, or it is damaged or of another kind.
        """
        raise ModelError(f"{cls.__name__} opens no references: it wraps a backend that is open already.")

    @abstractmethod
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute raw outputs of the model for preprocessed inputs.

        Args:
            inputs: N×C×H×W float32, on any device.

        Returns:
            N×K float32 on the CPU, before any check.
        """

    def fresh_outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the outputs anew, even if the backend has stored them; arguments and result as for `outputs`."""
        return self.outputs(inputs)

    @property
    def device(self) -> torch.device:
        """Device on which inputs should be prepared."""
        return torch.device("cpu")

    @property
    def batch_size(self) -> int:
        """Suitable number of images per batch."""
        return 256

    @property
    def module(self) -> nn.Module:
        """The frozen network, if the backend has one.

        Raises:
            AccessDenied: If there is no network behind this backend.
        """
        raise AccessDenied(
            f"{self.reference} gives outputs only; there is no network behind it that could be inspected.",
            hint="White-box attacks need the weights: load the model by a reference with --weights.",
        )

    def in_half(self) -> Backend | None:
        """The same model in bf16; None if its arithmetic cannot be chosen."""
        return None

    def embeddings(self, inputs: torch.Tensor, layer: str | None = None) -> torch.Tensor:
        """Compute the output of the second-to-last layer for preprocessed inputs.

        Args:
            inputs: N×C×H×W float32, on any device.
            layer: Name of another layer to use; see `securitynet.models.targets.embeddings.choose_extractor`.

        Returns:
            N×D float32 on the CPU.

        Raises:
            AccessDenied: If there is no network behind this backend.
            ModelError: If the layer does not exist, or could not be located.
        """
        raise AccessDenied(
            f"{self.reference} gives outputs only: it has no embeddings to show.",
            hint="Attacks on embeddings need the weights: load the model by a reference with --weights.",
        )
