"""Peak memory of Neural Cleanse on many classes of large images, beside the estimate that is made before it starts.

A ResNet-18 with random weights: only the sizes matter. No timing.

    python benchmarks/trigger_memory.py [--classes 100] [--side 224] [--images 8] [--epochs 1]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.detectors._neural_cleanse.memory import estimate_memory
from securitynet.detectors.neural_cleanse import NeuralCleanse
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access
from securitynet.torchvision_cure import import_torchvision


def read_peak() -> float:
    """Largest resident size of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Search, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--screen-epochs", type=int, default=1, help="with more than 100 classes")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape, count = (3, arguments.side, arguments.side), max(arguments.classes, 2 * arguments.images)
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (count, *shape), dtype=np.uint8))
    labels = np.arange(count, dtype=np.int64) % arguments.classes
    dataset = ImageDataset("random", pixels, labels, tuple(map(str, range(arguments.classes))), {})
    none, rows = np.empty(0, np.int64), np.arange(2 * arguments.images)
    network = import_torchvision("torchvision.models").resnet18(num_classes=arguments.classes).eval()
    backend = ModuleBackend(network, reference="random", checksum="random", example_shape=shape)
    target = Target(backend, access=Access.WHITE_BOX)
    with torch.inference_mode():
        target.module(pixels[: arguments.batch_size].float() / 255)
    method = NeuralCleanse(
        images=arguments.images, epochs=arguments.epochs, batch_size=arguments.batch_size, restarts=1,
        screen_epochs=arguments.screen_epochs,
    )  # fmt: skip
    before, start = read_peak(), time.process_time()
    with tempfile.TemporaryDirectory() as cache:
        data = TrialData(dataset, Splits("random", none, rows, none, rows, none, none))
        output = method(target, data, Context(device="cpu", cache=Path(cache)), method.threat_models[0])
        stored = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file()) / 1e9
    screened = arguments.classes > method.screen_above and arguments.screen_epochs < arguments.epochs
    estimate = estimate_memory(shape, arguments.images, arguments.classes, len(output.labels), screened=screened)
    print(
        f"{arguments.classes:,} classes, {arguments.side}²: peak {read_peak():.2f} GB ({before:.2f} GB before), "
        f"estimate {estimate / 1e9:.2f} GB besides the network's, cache {stored:.3f} GB, {len(output.labels)} labels "
        f"in full, {time.process_time() - start:.0f} s of processor time"
    )


if __name__ == "__main__":
    main()
