"""Our plain model stealing against KnockoffNets of the Adversarial Robustness Toolbox: agreement and time.

One target, the same questions, the same surrogate with the same initial weights, optimizer, batch size and epochs, once
with labels and once with posteriors as what is learned. Both sides ask the target themselves; neither is timed with
imports; our time holds the judging of the surrogate, the toolbox's does not. They differ in the order of records within
epochs, so agreements differ by chance: several seeds are run, and sides take turns. The toolbox is installed from PyPI
into a virtual environment of its own beside `--work`.

The toolbox is given a target that answers posteriors: from one that answers logits, as its documentation assumes,
`use_probability` would learn from logits as if they were posteriors.

    python benchmarks/stealing_peers.py --work FOLDER [--rounds 3] [--budget 300] [--epochs 20]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import torch

from securitynet.attacks.base import Context, TrialData
from securitynet.attacks.stealing._pool import pool_of
from securitynet.attacks.stealing.securitynet_surrogate import SecurityNetSurrogate
from securitynet.datasets import load, splits
from securitynet.models.artefacts import train_target
from securitynet.models.stored import Job, fresh_network
from securitynet.models.trainer.statistics import standardising
from securitynet.records import Access, Auxiliary, ThreatModel

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
PEER = ("adversarial-robustness-toolbox", "torch", "numpy", "scikit-learn", "scipy", "packaging")
PARTIAL = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)

TOOLBOX = """
import sys, time
import numpy as np
import torch
from torch import nn
from art.attacks.extraction import KnockoffNets
from art.estimators.classification import PyTorchClassifier

data = np.load(sys.argv[1])
soft, seed = sys.argv[3] == "posteriors", int(sys.argv[4])
epochs, batch, rate = int(data["epochs"]), int(data["batch"]), float(data["rate"])
torch.set_num_threads(int(data["threads"]))


class Standardised(nn.Module):
    def __init__(self, prefix, softmax):
        super().__init__()
        self.mean, self.std, self.softmax = float(data[prefix + "mean"]), float(data[prefix + "std"]), softmax
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(64 * 4, 128), nn.ReLU(), nn.Linear(128, 10))
        names = self.state_dict()
        self.load_state_dict({name: torch.from_numpy(data[prefix + name]) for name in names})

    def forward(self, x):
        logits = self.classifier(self.features((x - self.mean) / self.std).flatten(1))
        return logits.softmax(dim=1) if self.softmax else logits


def classifier(prefix, softmax, loss):
    network = Standardised(prefix, softmax)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    return PyTorchClassifier(network, loss=loss, optimizer=optimizer, input_shape=(1, 8, 8), nb_classes=10,
                             clip_values=(0, 1), device_type="cpu")


victim = classifier("target.", True, nn.CrossEntropyLoss())
thief = classifier("surrogate.", False, nn.CrossEntropyLoss())
np.random.seed(seed)
torch.manual_seed(seed)
x = data["asked"].astype(np.float32) / 255
attack = KnockoffNets(victim, batch_size_fit=batch, batch_size_query=512, nb_epochs=epochs, nb_stolen=len(x),
                      use_probability=soft, verbose=False)
started = time.perf_counter()
stolen = attack.extract(x, thieved_classifier=thief)
seconds = time.perf_counter() - started
judged = data["judged"].astype(np.float32) / 255
np.savez(sys.argv[2], seconds=seconds, predicted=stolen.predict(judged).argmax(axis=1),
         target=victim.predict(judged).argmax(axis=1))
"""


def environment(work: Path) -> Path:
    folder = work / "venv-art"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (folder / ".complete").exists():
        print("installing the toolbox ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS), *PEER]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        (folder / ".complete").touch()
    return python


def run_toolbox(python: Path, given: Path, out: Path, kind: str, seed: int) -> dict[str, np.ndarray]:
    command = [str(python), "-c", TOOLBOX, str(given), str(out), kind, str(seed)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(finished.stderr[-2000:])
    with np.load(out) as archive:
        return dict(archive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    python = environment(arguments.work)
    code = "import importlib.metadata as m; print(m.version('adversarial-robustness-toolbox'))"
    peer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    print(f"toolbox {peer}, torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads")

    digits = load("digits")
    weights = arguments.work / "target.safetensors"
    target = train_target("simple-cnn", digits, out=weights, epochs=30, learning_rate=0.02, schedule="constant")
    data = TrialData(digits, splits.four_way(digits))
    recipe = {"epochs": arguments.epochs}
    agreements: dict[tuple[str, str], list[float]] = {}
    ratios: dict[str, list[float]] = {"labels": [], "posteriors": []}
    for number in range(arguments.rounds):
        for kind, interface in (("labels", "labels"), ("posteriors", "full")):
            attack = SecurityNetSurrogate(
                architecture="simple-cnn", recipe=recipe, budgets=arguments.budget, interface=interface
            )
            context = Context(seed=number, device="cpu", threat_model=PARTIAL)
            records = pool_of(data, context, arguments.budget, missing_classes=True).records
            training = attack.training(target, context)
            job = Job(digits, records, digits.labels[records], 10, "simple-cnn", training)
            fresh, own = fresh_network(job), standardising(digits, records)
            given = arguments.work / "given.npz"
            plain = target.backend.module.state_dict()
            np.savez(
                given,
                asked=digits.batch(records).numpy(),
                judged=digits.batch(data.splits.non_members).numpy(),
                epochs=arguments.epochs,
                batch=training.batch_size,
                rate=training.learning_rate,
                threads=arguments.threads,
                **{f"target.{name}": value.numpy() for name, value in plain.items()},
                **{f"surrogate.{name}": value.numpy() for name, value in fresh.state_dict().items()},
                **{
                    f"{prefix}.{name}": values[0]
                    for prefix, steps in (("target", target.preprocessing), ("surrogate", own))
                    for name, values in (("mean", steps.mean), ("std", steps.std))
                },
            )

            seconds = {}
            for side in ("ours", "toolbox") if number % 2 else ("toolbox", "ours"):
                if side == "ours":
                    started = time.perf_counter()
                    output = attack(target, data, context, PARTIAL)
                    seconds[side] = time.perf_counter() - started
                    expected, predicted = output.target, output.surrogate[0]
                else:
                    found = run_toolbox(python, given, arguments.work / "out.npz", kind, number)
                    seconds[side] = float(found["seconds"])
                    expected = target.labels(digits.batch(data.splits.non_members)).numpy()
                    assert np.array_equal(found["target"], expected), "both sides must have the same target"
                    predicted = found["predicted"]
                agreements.setdefault((kind, side), []).append(float((predicted == expected).mean()))
            ratios[kind].append(seconds["ours"] / seconds["toolbox"])
            print(f"  {kind}: ours {seconds['ours']:.2f} s (with judging), toolbox {seconds['toolbox']:.2f} s")
    for kind, values in ratios.items():
        for side in ("ours", "toolbox"):
            found = agreements[kind, side]
            print(f"{kind:10} {side:8} agreement {statistics.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{kind:10} time ours / toolbox {statistics.median(values):.2f} ({spread})")


if __name__ == "__main__":
    main()
