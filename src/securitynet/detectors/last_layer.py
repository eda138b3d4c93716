"""Last layer: the weights of a backdoor's target class are larger than those of the others. No data, no queries."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.detectors._class_statistics.output import ClassStatistics
from securitynet.detectors.base import Detector
from securitynet.errors import ModelError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.targets.embeddings import find_classifier
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel


class LastLayerStatistics(ClassStatistics):
    """Mean and norm of each class's weights, 2×1×K."""

    blind_spot: ClassVar[str] = "Most backdoors leave no trace in the last layer, so this says little."


class LastLayer(Detector):
    """Compare two statistics of each class's row of the last layer: the mean of its weights and their norm.

    Fields et al., "Trojan signatures in DNN weights" (ICCV workshops 2021): features behind a ReLU are positive, so
    weights with a larger mean raise a class's logit for every strong feature, which is what a trigger adds. The mean
    over all classes is subtracted from each column first: it changes no posterior. Each statistic is tested by Grubbs'
    test, and the p-value is the smaller one, doubled.

    It takes milliseconds and is weak: on small networks that were trained here it noticed no backdoor
    (`docs/backdoors.md`).
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE),)
    output: ClassVar[type[Output]] = LastLayerStatistics
    # It costs nothing, but a default that notices so little would only reassure.
    costs: ClassVar[str | None] = "says little, because most backdoors leave no trace in the last layer"

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> LastLayerStatistics:
        weights = load_class_weights(target, tuple(data.dataset.image_shape))
        weights = weights - weights.mean(axis=0)
        names = data.dataset.class_names
        shown = tuple(names[label] if label < len(names) else str(label) for label in range(len(weights)))
        values = np.stack([weights.mean(axis=1), np.linalg.norm(weights, axis=1)])
        return LastLayerStatistics(values[:, None], ("mean weight", "norm of the weights"), shown)


def load_class_weights(target: Target, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The weights of a network's last layer, K×D float64.

    Args:
        target: The target, under white-box access.
        shape: Of its images, (C, H, W).

    Raises:
        AccessDenied: Under black-box access.
        ModelError: If no layer computes the K outputs, or several do.
    """
    whole = target.module  # checks the access
    network, device = target.backend.module, target.backend.device
    images = torch.zeros((3, *shape), device=device)
    with torch.inference_mode():
        classes = int(whole(images).shape[1])
    traced = find_classifier(network, target.preprocessing(images), reference=target.reference)
    parameters = dict(network.named_parameters())
    used = [parameters[name].detach() for name in traced.weights if name in parameters]
    matrices = [one for one in used if one.ndim > 1]
    if len(matrices) == 1:
        flat = matrices[0].flatten(1) if len(matrices[0]) == classes else matrices[0].flatten(0, -2).T
        if len(flat) == classes:
            return np.asarray(flat.double().cpu().numpy())
    raise ModelError(
        f"{target.reference} does not end in one layer with a row of weights for each of its {classes} classes.",
        hint="The detector `last-layer` cannot judge it; try `mm-bd`.",
    )
