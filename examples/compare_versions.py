"""Compare three versions of one model: as trained in floats, quantised to int8, and fine-tuned.

Does the version that is shipped give away more about its training set than the one that was assessed?

    python examples/compare_versions.py versions
    securitynet compare versions/float versions/tuned --policy versions/policy.toml
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import nn

import securitynet
from securitynet.cli.main import app

POLICY = '"membership.*.auc" = { rise = 0.02 }\n"target.test_accuracy" = { fall = 0.02 }\n'


class Batches(CalibrationDataReader):
    """Images by which the ranges of int8 are chosen.

    Args:
        images: N×1×8×8 floats in [0, 1].
    """

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(images, 4))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by the name of the network's input; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def train_on(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, rate: float) -> None:
    """Train a network in place.

    Args:
        network: Takes images and returns logits.
        images: N×1×8×8 floats in [0, 1].
        labels: N.
        epochs: Passes over the images, in batches of 32.
        rate: Adam's learning rate.
    """
    optimiser = torch.optim.Adam(network.parameters(), rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(32):
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def export(network: nn.Module, file: Path) -> None:
    """Write a network as an ONNX file that takes any number of images."""
    axes = {"images": {0: "n"}}
    example = (torch.zeros(2, 1, 8, 8),)
    torch.onnx.export(network.eval(), example, str(file), input_names=["images"], dynamic_axes=axes, dynamo=False)
    network.train()


def write_versions(folder: Path, *, records: int = 600, epochs: int = 60, more: int = 20) -> None:
    """Train on digits, and write ``float.onnx``, ``int8.onnx``, ``tuned.onnx`` and the lists of who is a member.

    Args:
        folder: Where to.
        records: Members, and as many non-members at most.
        epochs: Of the training.
        more: Of the fine-tuning, on the same members.
    """
    torch.manual_seed(0)
    dataset = securitynet.load_dataset("digits")
    parts = {name: dataset.parts[part][:records] for name, part in (("members", "train"), ("non-members", "test"))}
    for name, numbers in parts.items():
        (folder / f"{name}.csv").write_text("record\n" + "".join(f"{number}\n" for number in numbers))
    images = dataset.batch(parts["members"]).float() / 255
    labels = torch.from_numpy(np.asarray(dataset.labels)[parts["members"]])
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    train_on(network, images, labels, epochs, 1e-3)
    export(network, folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Batches(images[:64].numpy()))
    train_on(network, images, labels, more, 1e-3)
    export(network, folder / "tuned.onnx")


def main(folder: Path) -> None:
    """Assess the float network, then both other versions against it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_versions(folder)
    (folder / "policy.toml").write_text(POLICY)
    lists = ["--members", str(folder / "members.csv"), "--non-members", str(folder / "non-members.csv")]
    attacks = ["--attacks", "loss,modified-entropy", "--detectors", "none"]
    options = ["--dataset", "digits", "--normalize", "none", *lists, *attacks]
    for name in ("float", "int8", "tuned"):
        against = (
            [] if name == "float" else ["--against", str(folder / "float"), "--policy", str(folder / "policy.toml")]
        )
        model = f"onnx:{folder / name}.onnx"
        app(["assess", model, *options, *against, "--out", str(folder / name)], standalone_mode=False)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "versions"))
