"""The project's SimpleCNN for environments that lack the project, and a loop that trains it; torch only."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SimpleCNN(nn.Module):
    """Two blocks of 3×3 convolution, ReLU and pooling, then two linear layers; weights by the project's names."""

    def __init__(self, size: int, *, mean: float = 0.0, std: float = 1.0, softmax: bool = False) -> None:
        super().__init__()
        self.mean, self.std, self.softmax = mean, std, softmax
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Linear(64 * (size // 4) ** 2, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(self.features((images - self.mean) / self.std).flatten(1))
        return logits.softmax(dim=1) if self.softmax else logits


def loaded(network: nn.Module, weights: dict) -> nn.Module:
    """The network with weights from arrays by name."""
    network.load_state_dict({name: torch.from_numpy(weights[name]) for name in network.state_dict()})
    return network


def bare_loop(
    network: nn.Module, images: torch.Tensor, targets: torch.Tensor, orders: list[list[torch.Tensor]], rate: float
) -> None:
    """What no training can do without: index, scale, forward, backward, step.

    Args:
        network: Changed in place; it normalises.
        images: N×C×H×W uint8.
        targets: Labels or posteriors.
        orders: Positions of each batch of each epoch.
        rate: Of SGD with momentum 0.9 and weight decay 5e-4.
    """
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    for batches in orders:
        for batch in batches:
            optimizer.zero_grad()
            functional.cross_entropy(network(images[batch].float() / 255), targets[batch]).backward()
            optimizer.step()
    network.eval()


def weights_of(network: nn.Module) -> dict:
    """Arrays by name, copied."""
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}
