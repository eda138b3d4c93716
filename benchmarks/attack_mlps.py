"""Time attack networks of several classes or targets trained together against one training loop each, in one run.

Three kinds of loop, with the same networks, records, batches and steps of Adam:

- together: `securitynet.models.training.ensembles.train_together`;
- one loop each: indexed tensors, torch's Adam;
- one loop each, from a DataLoader: what most published code does.

Usage: python benchmarks/attack_mlps.py [--networks N] [--records N] [--epochs N] [--rounds N] [--threads N]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from securitynet.models.training.ensembles import EnsembleTraining, train_together


def indexed_loop(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(labels)), 64):
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()


def loader_loop(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=64, shuffle=True)
    for _ in range(epochs):
        for rows, classes in loader:
            optimizer.zero_grad()
            functional.cross_entropy(network(rows), classes).backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--inputs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    fresh = [
        nn.Sequential(nn.Linear(arguments.inputs, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
        for _ in range(arguments.networks)
    ]
    inputs = [torch.randn(arguments.records, arguments.inputs) for _ in fresh]
    labels = [(rows[:, 0] > 0).long() for rows in inputs]

    def together() -> None:
        train_together(
            copy.deepcopy(fresh),
            [(rows,) for rows in inputs],
            labels,
            EnsembleTraining(epochs=arguments.epochs),
            seeds=list(range(len(fresh))),
            device="cpu",
        )

    def one_each(loop) -> None:
        for network, rows, classes in zip(copy.deepcopy(fresh), inputs, labels, strict=True):
            loop(network, rows, classes, arguments.epochs)

    runs = {
        "together": together,
        "one loop each": lambda: one_each(indexed_loop),
        "one DataLoader loop each": lambda: one_each(loader_loop),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):  # interleaved, so that a change in the machine's load meets all of them
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {arguments.networks} networks of 64 and 32 "
        f"neurons, {arguments.records} records each, {arguments.epochs} epochs"
    )
    base = statistics.median(times["together"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:26} {median:7.2f} s  ratio {median / base:.2f}")


if __name__ == "__main__":
    main()
