"""How far Neural Cleanse's search is from what the processor can do: 3×32×32, 10 and 43 labels, in fp32 and bf16.

    python benchmarks/roofline.py [--threads 2] [--images 256] [--epochs 2]

The limit is measured, not taken from a data sheet: the fastest of several matrix products, and of several sums of two
arrays (three accesses an element). An operation needs at least its arithmetic at the first rate, and its bytes at the
second; the sum of the larger of both over the layers of a ResNet-20, forward and backward to the images, with each
tensor read and written once, is the roofline. Beside it: a bare loop of the same passes on the frozen network as it is,
on the folded one that our search uses, and the search itself, whose triggers and optimizer the roofline leaves out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from securitynet.detectors._neural_cleanse.label_search import SearchPlan
from securitynet.detectors.neural_cleanse import NeuralCleanse
from securitynet.models.architectures.factory import build
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

BATCH = 32


def find_fastest(run: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest round after one that warms up."""
    run()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure_arithmetic(dtype: torch.dtype) -> float:
    """Floating-point operations a second of the fastest of several matrix products."""
    rates = []
    for side in (512, 1024, 2048):
        left, right = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
        rates.append(2 * side**3 / find_fastest(lambda left=left, right=right: left @ right, 8))  # type: ignore[misc]
    return max(rates)


def measure_bandwidth() -> float:
    """Bytes a second of a sum of two arrays of 128 MB each into a third."""
    first, second, total = (torch.ones(32 << 20) for _ in range(3))
    return 3 * 4 * len(first) / find_fastest(lambda: torch.add(first, second, out=total), 8)


class Layers:
    """Arithmetic and bytes of each convolution and linear layer in a forward pass."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.found: list[tuple[float, float]] = []
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(self._note)

    def _note(self, module: torch.nn.Module, given: tuple[torch.Tensor], result: torch.Tensor) -> None:
        weight = module.get_parameter("weight")
        products = result.numel() * weight[0].numel()
        elements = given[0].numel() + result.numel() + weight.numel()
        self.found.append((2.0 * products, 4.0 * elements))


def compute_roofline(layers: Layers, arithmetic: float, bandwidth: float, width: float) -> float:
    """Least seconds of one forward and one backward pass to the images, which costs as much again."""
    return 2 * sum(max(flops / arithmetic, bytes_ * width / bandwidth) for flops, bytes_ in layers.found)


def run_bare(module: torch.nn.Module, images: torch.Tensor, passes: int, precision: str) -> None:
    """Forward and backward passes to the images alone."""
    wanted = torch.zeros(len(images), dtype=torch.int64)
    for _ in range(passes):
        leaf = images.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = module(leaf)
        torch.autograd.grad(functional.cross_entropy(logits.float(), wanted), leaf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rates = {dtype: measure_arithmetic(dtype) for dtype in (torch.float32, torch.bfloat16)}
    bandwidth = measure_bandwidth()
    print(
        f"{options.threads} threads: {rates[torch.float32] / 1e9:.0f} GFLOP/s in fp32, "
        f"{rates[torch.bfloat16] / 1e9:.0f} in bf16, {bandwidth / 1e9:.1f} GB/s"
    )
    torch.manual_seed(0)
    images = torch.rand(BATCH, 3, 32, 32)
    for classes in (10, 43):
        network = build("cifar-resnet20", classes, 3, 32).eval().requires_grad_(False)
        example = torch.randint(0, 256, (options.images, 3, 32, 32), dtype=torch.uint8)
        passes = classes * options.epochs * -(-options.images // BATCH)
        measured = build("cifar-resnet20", classes, 3, 32).eval().requires_grad_(False)
        layers = Layers(measured)
        measured(images)
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            width = 1.0 if precision == "fp32" else 0.5
            least = passes * compute_roofline(layers, rates[dtype], bandwidth, width)
            backend = ModuleBackend(
                network, reference="-", checksum="-", example_shape=(3, 32, 32), precision=precision
            )
            target = Target(backend, access=Access.WHITE_BOX)
            detector = NeuralCleanse(batch_size=BATCH, restarts=1, precision=precision)

            work = passes * 2 * sum(flops for flops, _ in layers.found)
            print(f"\n{classes} labels, {precision}, {passes} passes of {BATCH} images, {work / 1e9:.0f} GFLOP")
            plan = SearchPlan(classes=classes, epochs=options.epochs)
            sides = {
                "bare loop": partial(run_bare, network, images, passes, precision),
                "bare loop, folded": partial(run_bare, target.module, images, passes, precision),
                "our search": partial(detector.search, target, example, plan),
            }
            print(f"  {'roofline':20s} {least:8.2f} s {work / least / 1e9:8.0f} GFLOP/s")
            for name, run in sides.items():
                seconds = find_fastest(run, options.rounds)
                rate = work / seconds / 1e9
                print(f"  {name:20s} {seconds:8.2f} s {rate:8.0f} GFLOP/s {least / seconds:7.0%} of the roofline")


if __name__ == "__main__":
    main()
