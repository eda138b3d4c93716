"""DP-SGD: our trainer against Opacus' own PrivacyEngine, and per-sample gradients against ghost clipping.

Both sides start from the same weights on the same digits, with the same expected batch and the same number of steps.
First the results: without noise and with every record in each batch, both sides must end with the same weights. Then
the time of steps, in turns; medians and quartiles of the rounds' ratios.

Run: OMP_NUM_THREADS=1 python benchmarks/defenses_dp_sgd.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings

import numpy as np
import opacus
import torch
from opacus import PrivacyEngine
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import securitynet.datasets
from securitynet.models.architectures.factory import build
from securitynet.models.recipe import Recipe
from securitynet.models.trainer.private import PrivateSteps, with_group_norms
from securitynet.models.training import fit

warnings.filterwarnings("ignore")
EPOCHS = 3


def recipe(batch_size):
    return Recipe(
        epochs=EPOCHS, batch_size=batch_size, learning_rate=0.05, momentum=0, weight_decay=0, schedule="constant"
    )


def ours(network, images, labels, batch_size, clipping="per-sample", noise=1.0):
    module = copy.deepcopy(network)
    procedure = PrivateSteps(noise_multiplier=noise, clipping_bound=1.0, clipping=clipping)
    start = time.perf_counter()
    fit(module, images, labels, recipe(batch_size), device="cpu", procedure=procedure, data_fingerprint="-")
    return module, time.perf_counter() - start


def theirs(network, images, labels, batch_size, noise=1.0):
    module = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    loader = DataLoader(TensorDataset(images.float() / 255, labels), batch_size=batch_size)
    module, optimizer, loader = PrivacyEngine().make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=noise, max_grad_norm=1.0
    )
    start = time.perf_counter()
    for _ in range(EPOCHS):
        for batch, wanted in loader:
            optimizer.zero_grad()
            functional.cross_entropy(module(batch), wanted).backward()
            optimizer.step()
    return module._module, time.perf_counter() - start


def compare(title, first, second, rounds):
    ratios = []
    for number in range(rounds):
        pair = (first, second) if number % 2 == 0 else (second, first)
        taken = {side: side() for side in pair}
        ratios.append(taken[first] / taken[second])
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"{title}: {statistics.median(ratios):.2f} (quartiles {low:.2f} to {high:.2f}, {rounds} rounds)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    digits = securitynet.datasets.load("digits")
    images, labels = digits.batch(np.arange(256)), torch.from_numpy(digits.labels[:256])
    small = build("simple-cnn", 10, 1, 8)
    print(f"opacus {opacus.__version__}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    mine, _ = ours(small, images, labels, 256, noise=1e-12)
    other, _ = theirs(small, images, labels, 256, noise=1e-12)
    difference = max(float((a - b).abs().max()) for a, b in zip(mine.parameters(), other.parameters(), strict=True))
    print(f"largest difference of weights without noise and sampling: {difference:.1e}")
    moved = max(float((a - b).abs().max()) for a, b in zip(mine.parameters(), small.parameters(), strict=True))
    assert difference < 1e-5 < 1e-3 < moved
    compare(
        "simple-cnn, batches of 64: ours / PrivacyEngine",
        lambda: ours(small, images, labels, 64)[1],
        lambda: theirs(small, images, labels, 64)[1],
        rounds,
    )
    large = with_group_norms(build("vgg11", 10, 1, 8))
    for name, network in (("simple-cnn, 0.06 M weights", small), ("vgg11, 9.8 M weights", large)):
        few = slice(0, 256 if network is small else 64)
        compare(
            f"{name}: ghost clipping / per-sample gradients",
            lambda network=network, few=few: ours(network, images[few], labels[few], 32, "ghost")[1],
            lambda network=network, few=few: ours(network, images[few], labels[few], 32, "per-sample")[1],
            rounds,
        )


if __name__ == "__main__":
    main()
