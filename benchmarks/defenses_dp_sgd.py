"""DP-SGD by our trainer: ghost clipping against gradients of single records, on a small and on a large network.

Medians and quartiles of the rounds' ratios, in turns. Against Opacus' own loop: the row ``dp_sgd`` of ``make bench``.

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

import securitynet.datasets
from securitynet.models.architectures.factory import build
from securitynet.models.training.dp_sgd import PrivateSteps, replace_batch_norms
from securitynet.models.training.fit import fit
from securitynet.models.training.recipe import Recipe

warnings.filterwarnings("ignore")
EPOCHS = 3


def recipe(batch_size):
    return Recipe(
        epochs=EPOCHS, batch_size=batch_size, learning_rate=0.05, momentum=0, weight_decay=0, schedule="constant"
    )


def ours(network, images, labels, batch_size, clipping):
    module = copy.deepcopy(network)
    procedure = PrivateSteps(noise_multiplier=1.0, clipping_bound=1.0, clipping=clipping)
    start = time.perf_counter()
    fit(module, images, labels, recipe(batch_size), device="cpu", procedure=procedure, data_fingerprint="-")
    return time.perf_counter() - start


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
    large = replace_batch_norms(build("vgg11", 10, 1, 8))
    for name, network in (("simple-cnn, 0.06 M weights", small), ("vgg11, 9.8 M weights", large)):
        few = slice(0, 256 if network is small else 64)
        compare(
            f"{name}: ghost clipping / per-sample gradients",
            lambda network=network, few=few: ours(network, images[few], labels[few], 32, "ghost"),
            lambda network=network, few=few: ours(network, images[few], labels[few], 32, "per-sample"),
            rounds,
        )


if __name__ == "__main__":
    main()
