"""Time several surrogates: one after the other on all cores, against one a core (`securitynet.models.store.parallel`).

Both train the same networks on the same images and answers; the results are compared first. Then, for images that have
to be decoded at each access: decoding them for each surrogate, against once for all. (What `vmap` does to convolutional
networks on a CPU is in `shadows.py`.)

    python benchmarks/stealing_together.py [--count 4] [--architecture simple-cnn] [--records 1000] [--epochs 2]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import numpy as np
import torch

from securitynet.datasets.base import ImageDataset
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.store.parallel import obtain_models
from securitynet.models.training.recipe import Recipe


class Decoded:
    """Images that take a while to decode: a JPEG of CIFAR-10's size takes about 0.1 ms."""

    def __init__(self, images: torch.Tensor, seconds: float) -> None:
        self.images, self.shape, self.seconds = images, tuple(images.shape), seconds

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds * len(indices))
        return self.images[indices]


def specs(images: object, arguments: argparse.Namespace) -> list[ModelSpec]:
    labels = np.arange(arguments.records, dtype=np.int64) % 10
    names = tuple(map(str, range(10)))
    dataset = ImageDataset("benchmark", images, labels, names, {}, content_digest="benchmark")
    answers = np.random.default_rng(0).dirichlet(np.ones(10), arguments.records).astype(np.float32)
    records = np.arange(arguments.records, dtype=np.int64)
    recipes = [Recipe(epochs=arguments.epochs, seed=seed, schedule="constant") for seed in range(arguments.count)]
    return [ModelSpec(dataset, records, answers, 10, arguments.architecture, recipe) for recipe in recipes]


def timed(function) -> tuple[float, list]:
    started = time.perf_counter()
    found = function()
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decoding", type=float, default=0.001, help="seconds that decoding an image takes")
    arguments = parser.parse_args()
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (arguments.records, 3, 32, 32), generator=draws).to(torch.uint8)
    wanted, cores = specs(images, arguments), torch.get_num_threads()
    print(f"torch {torch.__version__}, {platform.machine()}, {cores} threads, {arguments.architecture}")

    def one_after_the_other() -> list:
        return [obtain_model(spec, kind="x", device="cpu") for spec in wanted]

    def side_by_side() -> list:
        return obtain_models(wanted, kind="x", device="cpu", threads=cores)

    gains: list[float] = []
    for number in range(arguments.rounds):
        order = (one_after_the_other, side_by_side) if number % 2 else (side_by_side, one_after_the_other)
        times = {function.__name__: timed(function) for function in order}
        (alone, first), (together, second) = times["one_after_the_other"], times["side_by_side"]
        if number == 0:
            pairs = zip(first, second, strict=True)
            worst = max(
                float((a.target.posteriors(images[:64]) - b.target.posteriors(images[:64])).abs().max())
                for a, b in pairs
            )
            print(f"largest difference of a posterior: {worst:.1e}")
        gains.append(alone / together)
        print(f"  one after the other {alone:.2f} s, side by side {together:.2f} s", flush=True)
    print(f"gain {statistics.median(gains):.2f} ({min(gains):.2f} to {max(gains):.2f})")

    slow = specs(Decoded(images, arguments.decoding), arguments)
    apart, _ = timed(lambda: [obtain_model(spec, kind="x", device="cpu") for spec in slow])
    shared, _ = timed(lambda: obtain_models(slow, kind="x", device="cpu", threads=1))
    print(f"decoding at {arguments.decoding * 1000:g} ms: for each {apart:.2f} s, once {shared:.2f} s")
    print(f"gain {apart / shared:.2f}")


if __name__ == "__main__":
    main()
