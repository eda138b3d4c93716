"""Training with dropout before every linear layer (Srivastava et al., 2014)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from typing_extensions import override

from securitynet.errors import ConfigurationError
from securitynet.models.training.fit import History
from securitynet.models.training.training_defense import Fitting, TrainingDefense


class Dropout(TrainingDefense):
    """Drops inputs of linear layers at random; existing dropout layers of the network are replaced.

    The layers exist only during training, so the weights fit the plain architecture.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"rate": 0.5}, {"rate": 0.75})

    rate: float = Field(default=0.5, gt=0, lt=1, description="Share of the inputs to drop.")

    @override
    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        network = fitting.network
        linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise ConfigurationError("The network has no linear layer whose inputs could be dropped.")
        own = [layer for layer in network.modules() if isinstance(layer, nn.Dropout)]
        rates = [layer.p for layer in own]
        for layer in own:  # they precede the linear layers: inputs must not be dropped twice
            layer.p = 0.0
        handles = [layer.register_forward_pre_hook(partial(_drop, self.rate)) for layer in linear]
        try:
            return fitting.fit(), {}
        finally:
            for handle in handles:
                handle.remove()
            for layer, rate in zip(own, rates, strict=True):
                layer.p = rate


def _drop(rate: float, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (functional.dropout(inputs[0], rate, layer.training), *inputs[1:])
