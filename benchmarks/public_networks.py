"""The public CIFAR-10 networks that several benchmarks use: all have the architecture of the PyTorch tutorial."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from securitynet.models.loading.load import load_target
from securitynet.models.targets.target import Target
from securitynet.records import Access

SOURCE = """
import torch.nn as nn
import torch.nn.functional as F
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))
def net(): return Net()
"""


@contextmanager
def open_tutorial_networks(folder: Path, pattern: str = "net-*.pth") -> Iterator[dict[str, Target]]:
    """Load the networks of a folder, under white-box access, by the names of their files."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "net.py"
        source.write_text(SOURCE)
        yield {
            path.stem: load_target(
                f"python:{source}:net", weights=path, normalize="half", input_size=32, access=Access.WHITE_BOX
            )
            for path in sorted(folder.glob(pattern))
        }
