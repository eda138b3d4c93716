"""Time of FGSM's examples: ours, torchattacks', and a bare forward and backward pass, on one network.

    pip install --no-deps torchattacks
    python benchmarks/evasion_speed.py [--images 512] [--rounds 5] [--threads 1]

The bare loop is what cannot be saved: for each batch a forward pass, the cross-entropy, and the gradient with respect
to the images, on the same frozen and folded network, with the same batches; it makes no examples. All sides get the
network in the form that we made of it, so that the comparison is of the loops. Results are checked to be equal first.
Sides take turns in each round. Ratios are of processor time, which a busy machine disturbs less than time on the clock;
what is printed is their median, with the smallest and the largest. With several threads look at the clock: bare loops
then wait after each operation, and ours does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torchattacks
from torch.nn.functional import cross_entropy

import securitynet.datasets
from securitynet.attacks.evasion._gradient import one_step, signs
from securitynet.models.input_gradients import InputGradients, log_odds
from securitynet.models.loading import load_target

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
EPSILON = 0.03
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = securitynet.datasets.load(f"parquet:{SHARED / 'cifar10-jpeg'}")
    weights = SHARED / "cifar10-resnets" / "resnet20-12fca82f.th"
    target = load_target("arch:cifar-resnet20", weights=str(weights), normalize="imagenet")
    records = dataset.parts["test"][: options.images]
    images, labels = dataset.batch(records).float() / 255, torch.from_numpy(dataset.labels[records])
    network = target.module
    take, spare = InputGradients(target), InputGradients(target, loss=log_odds)
    attack = torchattacks.FGSM(network, eps=EPSILON)

    def ours() -> torch.Tensor:
        return one_step(images, signs(take, spare, images, labels).signs, EPSILON)

    def bare() -> torch.Tensor:
        found = []
        for part, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            leaf = part.clone().requires_grad_()
            found.append(torch.autograd.grad(cross_entropy(network(leaf), truth), leaf)[0])
        return torch.cat(found)

    def theirs() -> torch.Tensor:
        return torch.cat([attack(x, y) for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)])

    difference = float((ours() - theirs()).abs().max())
    print(f"largest difference from torchattacks: {difference:.2g}")
    assert difference <= 1e-6
    sides: dict[str, Callable[[], torch.Tensor]] = {"ours": ours, "bare": bare, "torchattacks": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.rounds):
        order = list(sides) if number % 2 else list(reversed(sides))
        for name in order:
            start, used = time.perf_counter(), time.process_time()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    print(f"torch {torch.__version__}, torchattacks {torchattacks.__version__}, {options.threads} threads")
    for name, times in seconds.items():
        print(f"{name:13} {median(times):.2f} s on the clock, {median(processor[name]):.2f} s of the processor")
    for other in ("bare", "torchattacks"):
        for kind, measured in (("processor", processor), ("clock", seconds)):
            ratios = [mine / their for mine, their in zip(measured["ours"], measured[other], strict=True)]
            print(f"ours / {other}, {kind}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
