"""The first and the second `securitynet assess` against a bare loop of the target's forward pass.

The bare loop is what anybody would write: the network as built, evaluation mode, inference mode, images decoded
beforehand and held as uint8, normalised per batch. Only its loop is timed: neither imports nor decoding. The command is
timed whole: imports, decoding, forward pass, attacks, metrics, files, report. The two alternate, so that a drifting
machine favours none.

    python benchmarks/assess_overhead.py --weights resnet20.th --dataset parquet:FOLDER
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import sys, time
import torch
from securitynet import datasets
from securitynet.models.architectures.factory import build

architecture, weights, reference, size = sys.argv[1:5]
dataset = datasets.load(reference)
images = dataset.batch(torch.arange(len(dataset)).numpy())
network = build(architecture, dataset.num_classes)
state = torch.load(weights, weights_only=True, map_location="cpu")["state_dict"]
network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
network.eval()
mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
with torch.inference_mode():
    network((images[: int(size)].float() / 255 - mean) / std)
    started = time.perf_counter()
    rows = [network((batch.float() / 255 - mean) / std) for batch in images.split(int(size))]
    print(time.perf_counter() - started)
"""


def bare(arguments: argparse.Namespace, batch: int, cache: Path) -> float:
    command = [sys.executable, "-c", BARE, arguments.architecture, arguments.weights, arguments.dataset, str(batch)]
    environment = {**os.environ, "SECURITYNET_CACHE": str(cache)}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def assess(arguments: argparse.Namespace, out: Path, cache: Path) -> float:
    command = [
        *(sys.executable, "-m", "securitynet.cli.main", "assess", f"arch:{arguments.architecture}"),
        *("--weights", arguments.weights, "--dataset", arguments.dataset, "--normalize", "imagenet"),
        *("--out", str(out), "--cache", str(cache)),
    ]
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--architecture", default="cifar-resnet20")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256], help="batch sizes of the bare loop")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    loops: dict[int, list[float]] = {size: [] for size in arguments.batches}
    first, second = [], []
    with tempfile.TemporaryDirectory() as folder:
        decoded = Path(folder) / "decoded"
        for number in range(arguments.rounds):
            for size in arguments.batches:
                loops[size].append(bare(arguments, size, decoded))
            out, cache = Path(folder) / f"out{number}", Path(folder) / f"cache{number}"
            first.append(assess(arguments, out, cache))
            second.append(assess(arguments, Path(folder) / f"again{number}", cache))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {arguments.rounds} rounds"
    )
    best = min(statistics.median(times) for times in loops.values())
    rows = [(f"bare loop, batch {size}", times) for size, times in loops.items()]
    for name, times in [*rows, ("first assess", first), ("second assess", second)]:
        median = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:22} {median:7.2f} s  ({spread})  ratio to the best loop {median / best:.2f}")


if __name__ == "__main__":
    main()
