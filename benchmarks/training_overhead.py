"""Time the trainer against a bare training loop with the same network, batches and optimizer, in one run.

The bare loop does what no training can do without: index, scale, normalise, forward, backward, step. It keeps no
history, checks nothing and writes no checkpoint.

Usage: python benchmarks/training_overhead.py [--epochs N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional

from securitynet.datasets import load, splits
from securitynet.models.architectures.factory import build
from securitynet.models.training.fit import fit
from securitynet.models.training.pixel_statistics import fit_normalization
from securitynet.models.training.recipe import Recipe


def bare_loop(
    network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, mean: float, std: float, epochs: int
):
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(images)), 64):
            inputs = (images[batch].float() / 255 - mean) / std
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs), labels[batch]).backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    dataset = load("digits")
    members = splits.four_way(dataset).members
    preprocessing = fit_normalization(dataset, members)
    images, labels = dataset.batch(members), torch.from_numpy(dataset.labels[members])
    recipe = Recipe(epochs=arguments.epochs, schedule="constant")

    def network() -> torch.nn.Module:
        return build(arguments.architecture, dataset.num_classes, *dataset.image_shape[:2])

    def ours(checkpoint: Path | None) -> None:
        fit(network(), images, labels, recipe, preprocessing=preprocessing, checkpoint=checkpoint, device="cpu")

    times: dict[str, list[float]] = {"bare loop": [], "fit": [], "fit with checkpoints": []}
    with tempfile.TemporaryDirectory() as folder:
        # Interleaved, so that a change in the machine's load meets all of them.
        for number in range(arguments.rounds):
            for name, run in (
                (
                    "bare loop",
                    lambda: bare_loop(
                        network(), images, labels, preprocessing.mean[0], preprocessing.std[0], arguments.epochs
                    ),
                ),
                ("fit", lambda: ours(None)),
                ("fit with checkpoints", lambda number=number: ours(Path(folder) / f"{number}.checkpoint")),
            ):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.architecture}, {len(images)} images"
    )
    base = statistics.median(times["bare loop"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:22} {median:7.2f} s  ratio {median / base:.2f}")


if __name__ == "__main__":
    main()
