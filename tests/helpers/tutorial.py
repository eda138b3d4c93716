"""A tutorial's project, small: a network in one class, datasets with torchvision's transforms, a training loop."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import securitynet
from securitynet.torchvision_cure import import_torchvision

transforms: Any = import_torchvision("torchvision.transforms")

MEAN, STD = (0.3,), (0.4,)
SCALE = 2.0


class Net(nn.Module):
    """The network of a tutorial."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3, padding=1)
        self.normalisation = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(8 * 8 * 8, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.normalisation(self.convolution(images)))
        return self.linear(self.dropout(SCALE * features.flatten(1)))


class Digits(Dataset):
    """Images of digits as Pillow images, in the form of torchvision's own datasets."""

    def __init__(self, records: range, transform: Any = None, classes: list[str] | None = None) -> None:
        digits = securitynet.load_dataset("digits")
        self.images = [Image.fromarray(digits.images[index][0].numpy()) for index in records]
        self.targets = [int(digits.labels[index]) for index in records]
        self.transform = transform
        self.classes = classes or [f"digit {number}" for number in range(10)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        return (image if self.transform is None else self.transform(image)), self.targets[index]


def make_transform() -> Any:
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def train_network(dataset: Dataset, epochs: int = 30, seed: int = 0) -> Net:
    """Train as tutorials do; the network comes back in training mode."""
    torch.manual_seed(seed)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    (images, labels) = next(iter(DataLoader(dataset, batch_size=len(dataset))))
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net
