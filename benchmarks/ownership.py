"""False alarms and power of `securitynet ownership`: 28 independent public networks, and copies of some of them.

    python benchmarks/ownership.py NETWORKS DATASET [--owners net-01 ...] [--copies distil ...] [--others FILE ...]

NETWORKS holds ``net-*.pth``, CIFAR-10 networks of the PyTorch tutorial trained by different people; DATASET is a
reference of CIFAR-10 images (``parquet:FOLDER``). Each network is taken for the owner's and each other one for the
suspect, with the rest as independent references; so are networks of other architectures, given by ``--others``, which
are more accurate. Then copies of some networks are the suspects: pruned, quantised, fine-tuned, re-trained from their
last layer on, and distilled. With ``--steal CACHE``, surrogates of another architecture, stolen by
`stealing.securitynet-surrogate` and kept in CACHE, too. The table is printed as JSON lines.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

import securitynet
from public_networks import open_tutorial_networks
from securitynet.assessments.ownership import choose_images, predict_labels
from securitynet.attacks import ATTACKS
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import Splits, public
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics.ownership import Ownership, judge_suspect
from securitynet.models.loading.load import load_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

BUDGETS = (1000, 3000)
IMAGES = 4000
"""Images about which all models are asked, by default; of the test part."""

RECORDS = 10_000
"""Images on which copies are fine-tuned or distilled; of the training part, as an adversary's might be."""

Images = torch.Tensor
Labels = NDArray[np.int64]


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
        goals = {"posteriors": posteriors, "labels": posteriors.argmax(dim=1)}
        return [
            (f"distilled on {name}, 10 epochs", lambda one, goal=goal: train_anew(one, None, goal, 10))
            for name, goal in goals.items()
        ]
    return [("independent, on the same images, 10 epochs", lambda one: train_anew(one, None, labels, 10))]


KINDS = ("prune", "quantise", "fine-tune", "last-layer", "distil", "independent")


def main() -> None:
    """Print the table as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--owners", nargs="*", default=["net-01", "net-02", "net-12", "net-19", "net-26"],
                        help="networks that are copied, by name")  # fmt: skip
    parser.add_argument("--copies", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--others", nargs="*", type=Path, default=[], help="weights of CIFAR ResNets: resnetN-*.th")
    parser.add_argument("--images", type=int, default=IMAGES, help="images about which all models are asked")
    parser.add_argument("--steal", type=Path, help="folder for surrogates, which take hours")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = securitynet.load_dataset(options.dataset)
    split = public(dataset)
    asked = choose_images(split.non_members, options.images)
    order = np.random.default_rng(1).permutation(split.members)
    with open_tutorial_networks(options.networks) as networks:
        predicted = {name: predict_labels(network, dataset, asked) for name, network in networks.items()}
        truth = dataset.labels[asked]
        count_false_alarms(predicted, truth, {path.stem: ask_other(path, dataset, asked) for path in options.others})
        images, labels = dataset.batch(order[:RECORDS]).float() / 255, torch.from_numpy(dataset.labels[order[:RECORDS]])
        for kind in options.copies:  # all owners of one kind, so that a run that is stopped has whole rows
            for name in options.owners:
                for title, suspect in make_copies(networks[name], images, labels, [kind]):
                    show(name, title, predict_labels(suspect, dataset, asked), predicted, truth)
        if options.steal is not None:
            rest = np.setdiff1d(split.non_members, asked)
            for name in options.owners:
                for title, suspect in steal(networks[name], dataset, rest, options.steal):
                    show(name, title, predict_labels(suspect, dataset, asked), predicted, truth)


def judge(name: str, suspect: Labels, predicted: dict[str, Labels], truth: Labels, but: str = "") -> Ownership:
    """The verdict on a suspect of one owner, with all other networks but one as references."""
    references = [labels for other, labels in predicted.items() if other not in (name, but)]
    return judge_suspect(predicted[name], suspect, references, truth)


def count_false_alarms(predicted: dict[str, Labels], truth: Labels, others: dict[str, Labels]) -> None:
    """Print how many independent networks are called a copy."""
    pairs = [(name, other) for name in predicted for other in predicted if other != name]
    verdicts = [judge(name, predicted[other], predicted, truth, other) for name, other in pairs]
    print_counts("independent", verdicts)
    for other, labels in others.items():
        print_counts(other, [judge(name, labels, predicted, truth) for name in predicted])


def print_counts(suspects: str, verdicts: list[Ownership]) -> None:
    """Print a line on many verdicts."""
    accused = sum(one.verdict == "copy" for one in verdicts)
    shared = np.quantile([one.shared for one in verdicts], [0, 0.5, 0.95, 1]).round(3).tolist()
    line = {"suspects": suspects, "pairs": len(verdicts), "accused": accused, "rate": accused / len(verdicts)}
    print(json.dumps({**line, "shared errors": shared}), flush=True)


def show(name: str, title: str, suspect: Labels, predicted: dict[str, Labels], truth: Labels) -> None:
    """Print a line on one suspect."""
    found = judge(name, suspect, predicted, truth)
    line = {
        "owner": name,
        "accuracy of owner": round(float((predicted[name] == truth).mean()), 3),
        "suspect": title,
        "accuracy": round(float((suspect == truth).mean()), 3),
        "agreement": round(found.agreement.value or 0.0, 3),
        "shared errors": round(found.shared, 3),
        "closest reference": round(max(found.references), 3),
        "verdict": found.verdict,
    }
    print(json.dumps(line), flush=True)


def ask_other(weights: Path, dataset: ImageDataset, asked: Labels) -> Labels:
    """Predictions of a CIFAR ResNet, whose file is called ``resnet20-….th`` or so."""
    reference = f"arch:cifar-{weights.stem.partition('-')[0]}"
    return predict_labels(load_target(reference, weights=weights, normalize="imagenet"), dataset, asked)


def steal(owned: Target, dataset: ImageDataset, rest: Labels, cache: Path) -> Iterator[tuple[str, Target]]:
    """Surrogates of a network, by two architectures and query budgets."""
    parts = np.array_split(rest, 2)
    splits = Splits("test", parts[0], parts[1][:50], parts[0], parts[1][:50], parts[0], parts[1][50:])
    for architecture in ("simple-cnn", "cifar-resnet20"):
        attack = ATTACKS.get("stealing.securitynet-surrogate")(
            architecture=architecture,
            budgets=BUDGETS,
            recipe={"epochs": 10, "optimizer": "adam", "learning_rate": 1e-3},
            missing_classes=True,
        )
        output = attack(
            owned.under(Access.BLACK_BOX),
            TrialData(dataset, splits),
            Context(cache=cache, device="cpu"),
            attack.threat_models[0],
        )
        for number, budget in enumerate(output.budgets.tolist()):
            yield (
                f"{architecture}, {budget} queries",
                load_target(f"arch:{architecture}", weights=cache / output.saved[number]),
            )


if __name__ == "__main__":
    main()
