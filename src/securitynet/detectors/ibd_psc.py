"""IBD-PSC: an image whose posterior survives the amplification of the network's layers carries a trigger."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.detectors._calibrated_filter import CalibratedFilter, FittedCalibrated
from securitynet.detectors._queries import Arrays, QueryClient
from securitynet.detectors._scaled_layers import amplify, list_layers
from securitynet.errors import ModelError
from securitynet.files import hash_stably
from securitynet.models.targets import heads
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

MOST_STARTING = 256
"""Largest number of clean images by which the first amplified network is chosen."""

_OTHERS = "Choose a filter of inputs that needs outputs only, such as strip or teco."


class IbdPsc(CalibratedFilter):
    """Stops an image if amplified versions of the network still give its class a high posterior.

    Hou et al., "IBD-PSC: input-level backdoor detection via parameter-oriented scaling consistency" (2024), section 4:
    the scale and the shift of the last k batch norms are multiplied by ω, for the smallest k at which the error on
    clean images exceeds ξ, and for the ``count`` - 1 numbers of layers after it. The score is the mean posterior of the
    original prediction under these networks (PSC). An error is here a prediction that differs from that of the original
    network, because the clean images of a filter have no labels. The paper stops scores above 0.9; here the threshold
    follows from clean images. Networks without batch norms have hidden layers with a bias amplified instead.

    Attributes:
        factor: Factor ω of the layers.
        error: Error ξ on clean images at which the amplified versions begin.
        count: Number of amplified versions.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    title: ClassVar[str] = "IBD-PSC"
    costs: ClassVar[str | None] = "passes each of thousands of images through several versions of the network"

    factor: float = Field(default=1.5, gt=1, allow_inf_nan=False, description="Factor of the layers.")
    error: float = Field(default=0.6, gt=0, lt=1, description="Error at which the amplified versions begin.")
    count: int = Field(default=5, ge=1, description="Number of amplified versions.")

    @override
    def _prepare(self, client: QueryClient, tuning: torch.Tensor, seed: int) -> FittedIbdPsc:
        client.target.require(Access.WHITE_BOX, "the weights")
        return FittedIbdPsc(self, client, tuning)


class FittedIbdPsc(FittedCalibrated):
    """IBD-PSC beside a target.

    Args:
        settings: Configuration of the detector.
        client: Client that queries the target.
        tuning: Clean images by which the amplified versions are chosen, N×C×H×W uint8.

    Raises:
        ModelError: If the target is no single network, has no layer that could be amplified, or cannot be copied.
    """

    piece = 256

    def __init__(self, settings: IbdPsc, client: QueryClient, tuning: torch.Tensor) -> None:
        self.settings, self.client = settings, client
        self.columns = ("image",)
        backend = client.target.backend
        if not isinstance(backend, ModuleBackend):
            raise ModelError(
                f"IBD-PSC amplifies the layers of one network, which {backend.reference} is not.", hint=_OTHERS
            )
        self._backend = backend
        self._layers = list_layers(backend.module)[::-1]
        if not self._layers:
            raise ModelError(
                "IBD-PSC amplifies hidden layers; this network has none with a scale and a shift.", hint=_OTHERS
            )
        self.start, self._targets = self._choose_versions(tuning[:MOST_STARTING])

    @override
    def measure(self, images: torch.Tensor, rows: NDArray[np.int64], purpose: str) -> Arrays:
        return {"consistency": self.measure_consistency(images)}

    @override
    def score(self, facts: Arrays) -> NDArray[np.float64]:
        return facts["consistency"]

    def measure_consistency(self, images: torch.Tensor) -> NDArray[np.float64]:
        """Return the mean posterior of the original prediction under the amplified networks, N.

        Args:
            images: N×C×H×W uint8.
        """
        labels = self.client.outputs(images).argmax(dim=1, keepdim=True)
        total = torch.zeros(len(images), dtype=torch.float64)
        for version in self._targets:
            logits = heads.to_logits(self.client.outputs_of(version, images), version.head)
            # In double precision, because amplified logits are large, and posteriors of 1 could not be ranked.
            total += logits.double().softmax(dim=1).gather(1, labels)[:, 0]
        return np.asarray((total / len(self._targets)).numpy())

    @override
    def pictures(self, image: torch.Tensor, verdicts: Arrays, row: int, purpose: str) -> torch.Tensor:
        """Return the image alone: the networks change, and not the image."""
        return image[None]

    def _choose_versions(self, images: torch.Tensor) -> tuple[int, list[Target]]:
        """Return the smallest number of layers at which the error exceeds ξ, and the amplified versions from there."""
        labels = self.client.outputs(images).argmax(dim=1)
        last = len(self._layers)
        for number in range(1, last + 1):
            version = self._amplify(number)
            predicted = self.client.outputs_of(version, images).argmax(dim=1)
            if float((predicted != labels).double().mean()) > self.settings.error:
                start = number
                break
        else:
            start = max(1, last - self.settings.count + 1)
            self.notes = (f"No amplified version reached an error of {self.settings.error:.0%} on clean images.",)
        numbers = range(start, min(start + self.settings.count, last + 1))
        return start, [self._amplify(number) for number in numbers]

    def _amplify(self, number: int) -> Target:
        """Return the target with its last ``number`` layers amplified."""
        target, backend, factor = self.client.target, self._backend, self.settings.factor
        changed = ModuleBackend(
            amplify(backend.module, self._layers[:number], factor),
            reference=backend.reference,
            checksum=hash_stably([backend.checksum, "amplified", number, factor]),
            example_shape=None,  # an optimised network is amplified, and needs no further change
            device=backend.device,
            precision=backend.precision,
            batch_size=target.batch_size,
        )
        return Target(
            changed,
            head=target.head,
            preprocessing=target.preprocessing,
            access=target.access,
            query_counter=target.query_counter,
            precision=target.precision,
        )
