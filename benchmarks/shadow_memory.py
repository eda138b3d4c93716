"""Peak memory of LiRA on many records and classes: outputs of shadow models become signals as they come.

Real shadow models, trained for one epoch on random images: only the sizes matter. They are linear, because
convolutions would take most of an hour on one core, and no memory that counts. All outputs together take 4·M·N·K bytes,
3.8 GB at the default size with 16 models; the limit is 2 GB, and the exit code is 1 above it.

Usage: python benchmarks/shadow_memory.py [--records N] [--classes K] [--models M]
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch
from torch import nn

from securitynet.attacks.membership.lira import LiRA
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.architectures.in_process import register_factory
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target

LIMIT = 2.0
"""Largest resident size, in GB."""


def make_linear(num_classes: int, channels: int, image_size: int) -> nn.Module:
    """A linear classifier of pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))


def read_peak() -> float:
    """Largest resident size of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--models", type=int, default=16)
    arguments = parser.parse_args()
    count, classes = arguments.records, arguments.classes
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)]).astype(np.int64)
    images = torch.from_numpy(random.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8))
    half = {"train": np.arange(count // 2), "test": np.arange(count // 2, count)}
    names = tuple(map(str, range(classes)))
    dataset = ImageDataset("random", images, labels, names, half, members_stated=True)
    network = make_linear(classes, channels=1, image_size=8)
    target = Target(ModuleBackend(network, reference="linear", checksum="memory", example_shape=None))
    recipe = {"epochs": 1, "batch_size": 1024}
    attack = LiRA(shadows={"count": arguments.models, "architecture": register_factory(make_linear), "recipe": recipe})
    before, start = read_peak(), time.perf_counter()
    data = TrialData(dataset, splits.public(dataset), None)
    output = attack(target, data, Context(device="cpu"), attack.threat_models[0])
    everything = 4e-9 * arguments.models * count * classes
    print(
        f"{len(output.scores):,} records, {classes:,} classes, {arguments.models} shadow models: "
        f"peak {read_peak():.2f} GB ({before:.2f} GB before the attack), all outputs {everything:.2f} GB, "
        f"{time.perf_counter() - start:.0f} s"
    )
    sys.exit(read_peak() > LIMIT)


if __name__ == "__main__":
    main()
