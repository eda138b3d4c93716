"""False alarms and power of `securitynet own`: 28 independent public networks, and surrogates stolen from some of them.

    python benchmarks/ownership.py NETWORKS DATASET CACHE

NETWORKS holds ``net-*.pth``, CIFAR-10 networks of the PyTorch tutorial trained by different people; DATASET is a
reference of CIFAR-10 images (``parquet:FOLDER``); CACHE keeps the surrogates. Each network is taken for the owner's and
each other one for the suspect, with the rest as independent references; then some networks are stolen with
`stealing.securitynet-surrogate`, by two architectures and query budgets, and the surrogates are the suspects.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import securitynet
from securitynet.assessments.ownership import make_fingerprint
from securitynet.attacks import ATTACKS
from securitynet.datasets.splits import Splits
from securitynet.errors import SecurityNetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics.ownership import compare
from securitynet.models.loading.load import load_target
from securitynet.records import Access

NETWORK = """
import torch.nn as nn
import torch.nn.functional as F
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))
def net(): return Net()
"""
OWNERS = 4
BUDGETS = (1000, 4000)
PROVERS = 300


def main() -> None:
    """Print the table as JSON lines."""
    folder, reference, cache = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    dataset = securitynet.load_dataset(reference)
    order = np.random.default_rng(0).permutation(len(dataset)).astype(np.int64)
    apart, rest = np.sort(order[:PROVERS]), np.sort(order[PROVERS:])
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "net.py"
        source.write_text(NETWORK)
        networks = {
            path.stem: load_target(
                f"python:{source}:net", weights=path, normalize="half", input_size=32, access=Access.WHITE_BOX
            )
            for path in sorted(folder.glob("net-*.pth"))
        }
    matches: dict[str, dict[str, tuple[int, int]]] = {}
    prints = {}
    for name, owned in networks.items():
        try:
            prints[name] = make_fingerprint(owned, dataset, apart)
        except SecurityNetError as error:
            print(json.dumps({"owner": name, "error": str(error)}))
            continue
        hits = {other: prints[name].matches(network) for other, network in networks.items() if other != name}
        matches[name] = {other: (int(hit.sum()), len(hit)) for other, hit in hits.items()}
    accused = tried = 0
    for of in matches.values():
        for suspect, (hit, count) in of.items():
            others = [one / n for other, (one, n) in of.items() if other != suspect]
            accused += compare(hit, count, others).verdict == "copy"
            tried += 1
    shares = [hit / count for of in matches.values() for hit, count in of.values()]
    print(
        json.dumps(
            {
                "pairs": tried,
                "accused": accused,
                "rate": accused / tried,
                "match of independent": np.quantile(shares, [0, 0.5, 0.95, 1]).round(3).tolist(),
            }
        ),
        flush=True,
    )
    parts = np.array_split(rest, 2)
    splits = Splits("test", parts[0], parts[1][:50], parts[0], parts[1][:50], parts[0], parts[1][50:])
    for name in list(prints)[:OWNERS]:
        for architecture in ("simple-cnn", "cifar-resnet20"):
            attack = ATTACKS.get("stealing.securitynet-surrogate")(
                architecture=architecture,
                budgets=BUDGETS,
                recipe={"epochs": 10, "optimizer": "adam", "learning_rate": 1e-3},
                missing_classes=True,
            )
            model = attack.threat_models[0]
            output = attack(
                networks[name].under(Access.BLACK_BOX),
                TrialData(dataset, splits),
                Context(cache=cache, device="cpu"),
                model,
            )
            for number, budget in enumerate(output.budgets.tolist()):
                surrogate = load_target(f"arch:{architecture}", weights=cache / output.saved[number])
                hit = prints[name].matches(surrogate)
                verdict = compare(int(hit.sum()), len(hit), [one / n for one, n in matches[name].values()])
                agreement = float((output.surrogate[number] == output.target).mean())
                print(
                    json.dumps(
                        {
                            "owner": name,
                            "surrogate": architecture,
                            "queries": budget,
                            "agreement": agreement,
                            "match": float(hit.mean()),
                            "closest reference": max(verdict.references),
                            "p": verdict.p_value,
                            "verdict": verdict.verdict,
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
