"""Neural Cleanse: many labels at once against one label at a time, as TrojanZoo does, on one target.

The loop is written as the original's authors do it: autograd through mask and pattern, torch's Adam, one label after
the other, with the network as it was loaded (weights' gradients on), and once more with the frozen and folded one.
All get the same weights, images, starting points and number of steps; norms are compared first, then times,
alternating.

TrojanZoo's search (2.0.3) is that loop: one label after the other, autograd, torch's Adam(0.1, (0.5, 0.9)), the network
as it was loaded. It is written out here because its classes want datasets, models and attacks of their own kind.

    python benchmarks/neural_cleanse_peers.py --labels 10 --images 64 --epochs 3
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from securitynet.detectors._costs import CostRules
from securitynet.detectors._search import SearchRules, TriggerSearch
from securitynet.models.architectures.factory import build
from securitynet.models.backends.module import ModuleBackend
from securitynet.models.target import Target
from securitynet.models.trainer.randomness import generator
from securitynet.records import Access

RULES = CostRules(initial=1e-3, threshold=0.99, patience=5, multiplier=2.0, stop_ratio=1.0, stop_patience=None)


def loop(module: nn.Module, images: torch.Tensor, starts: torch.Tensor, labels: list[int], epochs: int) -> list[float]:
    """One label after the other; sums of the masks after the last step."""
    norms = []
    for row, label in enumerate(labels):
        mask, pattern = starts[row, -1:].clone().requires_grad_(), starts[row, :-1].clone().requires_grad_()
        adam = torch.optim.Adam([pattern, mask], lr=0.1, betas=(0.5, 0.9))
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator(0, "order", epoch))
            for chosen in order.split(32):
                batch = images[chosen].float() / 255
                m = torch.tanh(mask) / (2 - 1e-7) + 0.5
                logits = module((1 - m) * batch + m * (torch.tanh(pattern) / (2 - 1e-7) + 0.5))
                goal = torch.full((len(batch),), label)
                loss = functional.cross_entropy(logits, goal) + 0.0 * m.abs().sum()
                adam.zero_grad()
                loss.backward()
                adam.step()
        norms.append(float((torch.tanh(mask.detach()) / (2 - 1e-7) + 0.5).sum()))
    return norms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="cifar-resnet20")
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = build(arguments.architecture, 10, channels=3, image_size=32).eval()
    backend = ModuleBackend(network, reference="benchmark", checksum="benchmark", example_shape=(3, 32, 32))
    target = Target(backend, access=Access.WHITE_BOX)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (arguments.images, 3, 32, 32), dtype=np.uint8))
    labels = list(range(arguments.labels))

    def ours(precision: str = "fp32") -> list[float]:
        seen = Target(backend, access=Access.WHITE_BOX, precision=precision)
        run = TriggerSearch(seen, images, labels, SearchRules(RULES, 0.1, 32, seed=0))
        for epoch in range(arguments.epochs):
            run.epoch(epoch)
        return (torch.tanh(run.raw[:, -1]) / (2 - 1e-7) + 0.5).sum(dim=(1, 2)).tolist()

    starts = TriggerSearch(target, images, labels, SearchRules(RULES, 0.1, 32, seed=0)).raw.clone()
    ways = {
        "one at a time, weights' gradients on": lambda: loop(network, images, starts, labels, arguments.epochs),
        "one at a time, frozen and folded": lambda: loop(target.module, images, starts, labels, arguments.epochs),
        "many at once, bf16": lambda: ours("bf16"),
        "many at once": ours,
    }
    norms = {name: np.array(way()) for name, way in ways.items()}
    for name, values in norms.items():
        gap = np.abs(values / norms["many at once"] - 1).max()
        print(f"{name:40} largest difference of a norm {gap:.2e}")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    steps = arguments.labels * arguments.epochs * -(-arguments.images // 32)
    print(f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, {arguments.architecture}")
    for name, values in seconds.items():
        ratios = [value / ours_ for value, ours_ in zip(values, seconds["many at once"], strict=True)]
        print(
            f"{name:40} {1000 * statistics.median(values) / steps:7.1f} ms a label-step, "
            f"{statistics.median(ratios):5.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
