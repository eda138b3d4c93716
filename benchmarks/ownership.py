"""False alarms and power of `securitynet ownership`: 28 independent public networks, and copies of some of them.

    python benchmarks/ownership.py NETWORKS DATASET [--owners 5] [--copies prune fine-tune ...] [--steal CACHE]

NETWORKS holds ``net-*.pth``, CIFAR-10 networks of the PyTorch tutorial trained by different people; DATASET is a
reference of CIFAR-10 images (``parquet:FOLDER``). Each network is taken for the owner's and each other one for the
suspect, with the rest as independent references. Then copies of some networks are the suspects: pruned, quantised,
fine-tuned, re-trained from their last layer on, and distilled. With ``--steal``, surrogates of another architecture,
stolen by `stealing.securitynet-surrogate` and kept in CACHE, too. The table is printed as JSON lines.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import securitynet
from public_networks import open_tutorial_networks
from securitynet.assessments.ownership import Fingerprint, make_fingerprint
from securitynet.attacks import ATTACKS
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits
from securitynet.errors import SecurityNetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics.ownership import rank_suspect
from securitynet.models.loading.load import load_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

BUDGETS = (1000, 4000)
PROVERS = 300
RECORDS = 10_000
"""Images on which copies are fine-tuned or distilled; none of them is in the fingerprint."""

Images = torch.Tensor


def make_copies(owned: Target, images: Images, labels: torch.Tensor, kinds: list[str]) -> Iterator[tuple[str, Target]]:
    """Copies of a network, as somebody who took it would change it.

    Args:
        owned: The owner's network.
        images: N×C×H×W in [0, 1], for the copies that are trained.
        labels: Their classes, N.
        kinds: Which copies.
    """
    inputs = owned.preprocessing(images)
    posteriors = owned.module(images).softmax(dim=1).detach()

    def wrap(network: torch.nn.Module, name: str) -> Target:
        backend = ModuleBackend(network.eval(), reference=name, checksum=name, example_shape=tuple(images.shape[1:]))
        return Target(backend, head=owned.head, preprocessing=owned.preprocessing, access=Access.WHITE_BOX)

    for kind in kinds:
        for name, change in list_changes(kind, inputs, labels, posteriors):
            network = copy.deepcopy(owned.backend.module)
            torch.manual_seed(0)
            change(network)
            yield name, wrap(network, name)


def list_changes(
    kind: str, inputs: Images, labels: torch.Tensor, posteriors: torch.Tensor
) -> list[tuple[str, Callable[[torch.nn.Module], None]]]:
    """Names and functions that change a network in place."""

    def train(network: torch.nn.Module, goals: torch.Tensor, epochs: int, rate: float) -> None:
        network.train().requires_grad_(True)
        optimizer = torch.optim.Adam(network.parameters(), rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(network(inputs[rows]), goals[rows]).backward()
                optimizer.step()

    def restart(network: torch.nn.Module, layers: int | None) -> None:
        parts = [part for part in network.modules() if hasattr(part, "reset_parameters")]
        for part in parts if layers is None else parts[-layers:]:
            part.reset_parameters()

    def prune(network: torch.nn.Module, share: float) -> None:
        for weights in (one.data for one in network.parameters() if one.ndim > 1):
            weights[weights.abs() <= weights.abs().flatten().quantile(share)] = 0

    def quantise(network: torch.nn.Module, bits: int) -> None:
        for weights in (one.data for one in network.parameters() if one.ndim > 1):
            step = weights.abs().max() / (2 ** (bits - 1) - 1)
            weights.copy_((weights / step).round() * step)

    def train_anew(network: torch.nn.Module, layers: int | None, goals: torch.Tensor, epochs: int) -> None:
        restart(network, layers)
        train(network, goals, epochs, 1e-3)

    if kind == "prune":
        return [(f"pruned, {share:.0%}", lambda one, share=share: prune(one, share)) for share in (0.3, 0.6)]
    if kind == "quantise":
        return [(f"quantised, {bits} bits", lambda one, bits=bits: quantise(one, bits)) for bits in (8, 4)]
    if kind == "fine-tune":
        return [
            (f"fine-tuned, {epochs} epochs", lambda one, epochs=epochs: train(one, labels, epochs, 1e-3))
            for epochs in (1, 5)
        ]
    if kind == "last-layer":
        return [("last layer anew, then all fine-tuned, 3 epochs", lambda one: train_anew(one, 1, labels, 3))]
    if kind == "distil":
        return [("distilled, 10 epochs", lambda one: train_anew(one, None, posteriors, 10))]
    return [("independent, on the same images, 10 epochs", lambda one: train_anew(one, None, labels, 10))]


KINDS = ("prune", "quantise", "fine-tune", "last-layer", "distil", "independent")


def main() -> None:
    """Print the table as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--owners", type=int, default=5, help="networks that are copied")
    parser.add_argument("--copies", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--steal", type=Path, help="folder for surrogates, which take hours")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = securitynet.load_dataset(options.dataset)
    order = np.random.default_rng(0).permutation(len(dataset)).astype(np.int64)
    apart, rest = np.sort(order[:PROVERS]), np.sort(order[PROVERS:])
    with open_tutorial_networks(options.networks) as networks:
        compare_all(networks, dataset, apart, rest, options)


def compare_all(
    networks: dict[str, Target],
    dataset: ImageDataset,
    apart: np.ndarray,
    rest: np.ndarray,
    options: argparse.Namespace,
) -> None:
    """Compare each network with each other one, and some with their copies."""
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
            accused += rank_suspect(hit, count, others).verdict == "copy"
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
    used = np.sort(np.random.default_rng(1).permutation(rest)[:RECORDS])
    images, labels = dataset.batch(used).float() / 255, torch.from_numpy(dataset.labels[used])
    test = dataset.batch(apart).float() / 255
    for name in list(prints)[: options.owners]:
        truth = torch.from_numpy(dataset.labels[apart])
        accuracy = float((networks[name].module(test).argmax(dim=1) == truth).float().mean())
        for kind, suspect in make_copies(networks[name], images, labels, options.copies):
            hit = prints[name].matches(suspect)
            verdict = rank_suspect(int(hit.sum()), len(hit), [one / n for one, n in matches[name].values()])
            print(
                json.dumps(
                    {
                        "owner": name,
                        "accuracy of owner": round(accuracy, 3),
                        "suspect": kind,
                        "accuracy": round(float((suspect.module(test).argmax(dim=1) == truth).float().mean()), 3),
                        "match": round(float(hit.mean()), 3),
                        "closest reference": round(max(verdict.references), 3),
                        "verdict": verdict.verdict,
                    }
                ),
                flush=True,
            )
    if options.steal is not None:
        steal_some(list(prints)[: options.owners], networks, prints, matches, dataset, rest, options.steal)


def steal_some(
    owners: list[str],
    networks: dict[str, Target],
    prints: dict[str, Fingerprint],
    matches: dict[str, dict[str, tuple[int, int]]],
    dataset: ImageDataset,
    rest: np.ndarray,
    cache: Path,
) -> None:
    """Steal networks by two architectures and query budgets, and print what their fingerprints say."""
    parts = np.array_split(rest, 2)
    splits = Splits("test", parts[0], parts[1][:50], parts[0], parts[1][:50], parts[0], parts[1][50:])
    for name in owners:
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
                verdict = rank_suspect(int(hit.sum()), len(hit), [one / n for one, n in matches[name].values()])
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
