"""The network and the images that rows share: the public ResNet-20 on CIFAR-10, or digits where that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.environments import BENCHMARKS
from harness.row import Case

if TYPE_CHECKING:
    import torch

WEIGHTS = "weights.npz"
IMAGES = "images"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the public ResNet-20 was trained with (its own training code takes ImageNet's)."""


def write(case: Case, count: int, *, architecture: str = "cifar-resnet20", first: int = 0) -> None:
    """Write a trained network and ``count`` labelled images for all sides of a case (project environment).

    Args:
        case: Whose folder takes ``weights.npz`` and ``images.npz``.
        count: Images: of CIFAR-10's test part, then of its training part; repeated if there are fewer.
        architecture: `cifar-resnet20` comes from the public checkpoint where it is at hand.
        first: Position of the first one.

    ``images.npz`` holds ``images``, count×3×32×32 uint8, and ``labels``, count int64.
    """
    images, labels = _cifar(case, first + count) if case.data else _digits()
    rows = (np.arange(count) + first) % len(images)
    case.save(IMAGES, images=images[rows], labels=labels[rows])
    state = _public(case.data) if case.data and architecture == "cifar-resnet20" else _trained(case, architecture)
    np.savez(case.folder / WEIGHTS, **{"architecture": np.array(architecture), **state})


def network(case: Case) -> torch.nn.Module:
    """The network as anybody would load it, in any environment: normalisation inside, logits out, evaluation mode."""
    import sys

    import torch

    sys.path.insert(0, str(BENCHMARKS.parent / "src"))
    from securitynet.models.architectures.factory import build  # needs torch alone

    with np.load(case.folder / WEIGHTS, allow_pickle=False) as archive:
        state = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "architecture"}
        plain = build(str(archive["architecture"]), 10, 3, 32)
    plain.load_state_dict(state)

    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
            self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))
            self.network = plain

        def forward(self, images: Any) -> Any:
            return self.network((images - self.mean) / self.deviation)

    return Normalised().eval().to(case.device)


def images(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """The images as N×3×32×32 float32 in [0, 1], and labels, on the case's device."""
    import torch

    found = case.load(IMAGES)
    pixels = torch.from_numpy(found["images"]).to(case.device).float() / 255
    return pixels, torch.from_numpy(found["labels"]).to(case.device)


def target(case: Case, **options: Any) -> Any:
    """The same network as our `Target`, under white-box access if nothing else is said (project environment)."""
    from securitynet.models.sources.preprocessing import Preprocessing
    from securitynet.models.targets.backends.module import ModuleBackend
    from securitynet.models.targets.target import Target
    from securitynet.records import Access

    wrapped = network(case)
    backend = ModuleBackend(
        wrapped.network, reference="benchmark", checksum="benchmark", example_shape=(3, 32, 32), device=_device(case)
    )
    preprocessing = Preprocessing(mean=MEAN, std=DEVIATION)
    return Target(backend, preprocessing=preprocessing, **{"access": Access.WHITE_BOX, **options})


def _device(case: Case) -> torch.device:
    import torch

    return torch.device(case.device)


def _cifar(case: Case, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images first, then training images, each in an order of its own."""
    from securitynet import datasets

    dataset = datasets.load(f"parquet:{case.data}/cifar10-jpeg", cache=case.folder.parent.parent / "cache")
    draw = np.random.default_rng(0)
    part = np.concatenate([draw.permutation(dataset.parts[name]) for name in ("test", "train")])[:count]
    return dataset.batch(part).numpy(), dataset.labels[part]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from securitynet import datasets

    dataset = datasets.load("digits", channels=3, size=32)
    order = np.random.default_rng(0).permutation(len(dataset))
    return dataset.batch(order).numpy(), dataset.labels[order]


def _public(data: Path | None) -> dict[str, np.ndarray]:
    from securitynet.models.sources.weights import read_state_dict

    (path,) = (data / "cifar10-resnets").glob("resnet20*")
    state = read_state_dict(path)[0]
    return {name.removeprefix("module."): tensor.numpy() for name, tensor in state.items()}


def _trained(case: Case, architecture: str) -> dict[str, np.ndarray]:
    """Weights after a short training on the case's own material: real enough for attacks to have something to do."""
    import torch

    from securitynet.models.architectures.factory import build

    pixels, classes = _cifar(case, 2000) if case.data else _digits()
    torch.manual_seed(0)
    plain = build(architecture, 10, 3, 32)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for _ in range(3):
        for rows in torch.randperm(len(pixels)).split(128):
            batch = (torch.from_numpy(pixels[rows.numpy()]).float() / 255 - mean) / deviation
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(plain(batch), torch.from_numpy(classes[rows.numpy()])).backward()
            optimizer.step()
    return {name: tensor.detach().numpy() for name, tensor in plain.state_dict().items()}
