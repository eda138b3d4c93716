"""All images of CIFAR-10 through `securitynet assess`, first and again, and through a bare loop of forward passes.

The command is timed whole: imports, decoding, forward passes, attacks, intervals, files, report. `signals` is the part
of it that queries the target, in a process that has imported everything and holds the images decoded. The bare loop is
what anybody would write (evaluation mode, inference mode, batches), with neither imports nor decoding.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from harness.row import AtMost, Row, Within, near, require
from rows import _material
from rows._process import timed

CACHE = "cache"
BATCH = 64
"""Of the bare loop: on two cores faster than 256."""

ROW = Row(
    "Assess ResNet-20",
    unit="images",
    sizes=(6_000, 60_000),
    aims=(
        AtMost(1.3, "bare loop", ours="ours: first assess"),
        AtMost(1.1, "bare loop", ours="ours: signals"),
        AtMost(0.5, "bare loop", ours="ours: second assess"),
        Within(5000, size=6_000, ours="ours: second assess"),
    ),
    rounds=1,  # minutes a run
    allowance=180,
    warm_up=False,
    devices=("cpu", "cuda"),
)


@ROW.inputs
def inputs(case):
    """The network, its weights as a file for the command, and the images as Parquet and as an array."""
    import safetensors.torch
    import torch

    _material.write(case, case.size)
    with np.load(case.folder / _material.WEIGHTS, allow_pickle=False) as archive:
        state = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "architecture"}
    safetensors.torch.save_file(state, case.folder / "weights.safetensors")
    found = case.load(_material.IMAGES)
    train = case.size * 5 // 6
    _parquet(case.folder / "images" / "train.parquet", found["images"][:train], found["labels"][:train])
    _parquet(case.folder / "images" / "test.parquet", found["images"][train:], found["labels"][train:])


def _parquet(path, images, labels):
    """Lossless, in the format that `parquet:FOLDER` reads."""
    import io

    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    cells = []
    for image in images:
        with io.BytesIO() as stream:
            Image.fromarray(image.transpose(1, 2, 0)).save(stream, "PNG", compress_level=1)
            cells.append({"bytes": stream.getvalue(), "path": None})
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": labels}), path)


def _command(case, out, cache):
    return timed(
        [
            *(sys.executable, "-m", "securitynet.cli.main", "assess", "arch:cifar-resnet20"),
            *("--weights", str(case.folder / "weights.safetensors"), "--dataset", f"parquet:{case.folder / 'images'}"),
            *("--normalize", "imagenet", "--device", case.device, "--out", str(out), "--cache", str(cache)),
        ]
    )


@ROW.side("ours: first assess")
def first(case):
    """With an empty cache, which the second assessment then finds."""

    def run():
        shutil.rmtree(case.folder / CACHE, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=case.folder) as name:
            taken = _command(case, Path(name) / "out", case.folder / CACHE)
            return {**taken, **_read_accuracy(Path(name) / "out")}

    return run


@ROW.side("ours: second assess")
def second(case):
    def run():
        with tempfile.TemporaryDirectory(dir=case.folder) as name:
            taken = _command(case, Path(name) / "out", case.folder / CACHE)
            return {**taken, **_read_accuracy(Path(name) / "out")}

    return run


def _read_accuracy(out):
    """The accuracies, of how many records, and how many copies the result says were left out."""
    import json

    document = json.loads((out / "result.json").read_text(encoding="utf-8"))
    found = {one["name"]: one for one in document["measurements"]}
    both = [found["target.train_accuracy"], found["target.test_accuracy"]]
    copies = document["controls"]["copies"]
    return {
        "accuracy": [one["value"] for one in both],
        "judged": [one["n"] for one in both],
        "copies": [copies["members"], copies["non_members"]],
    }


@ROW.side("ours: signals")
def signals(case):
    import torch

    from securitynet.datasets.base import ImageDataset
    from securitynet.models.targets.signals import collect_signals

    found = case.load(_material.IMAGES)
    dataset = ImageDataset("benchmark", torch.from_numpy(found["images"]), found["labels"], tuple("0123456789"), {})
    rows = np.arange(case.size)

    def run():
        with tempfile.TemporaryDirectory(dir=case.folder) as name:
            return {"logits": collect_signals(_material.target(case), dataset, rows, cache=Path(name)).logits}

    return run


@ROW.side("bare loop", environment="timm")
def bare(case):
    import torch

    network = _material.network(case)
    images = torch.from_numpy(case.load(_material.IMAGES)["images"])

    def run():
        with torch.inference_mode():
            parts = [network(batch.to(case.device).float() / 255).cpu() for batch in images.split(BATCH)]
        return {"logits": torch.cat(parts).numpy()}

    return run


@ROW.check
def check(case, found):
    logits = found["bare loop"]["logits"]
    gap = near(found["ours: signals"]["logits"], logits, 5e-3, "logits")
    right = logits.argmax(axis=1) == case.load(_material.IMAGES)["labels"]
    train = case.size * 5 // 6
    accuracy, given = [right[:train].mean(), right[train:].mean()], [train, case.size - train]
    for side in ("ours: first assess", "ours: second assess"):
        mine = found[side]
        for ours, judged, copies, all_, number in zip(
            mine["accuracy"], mine["judged"], mine["copies"], accuracy, given, strict=True
        ):
            left = number - judged
            near(ours, all_, 2e-4 + left / judged, f"accuracy of {side}, {left} of {number} records left out")
            require(left == copies, f"{side} leaves out {left} of {number} records, of which {copies} are copies")
            require(left <= 0.05 * number, f"{side} leaves out {left} of {number} records")
    require(accuracy[1] > 0.2, "the network has learned nothing")
    shown = f"{accuracy[0]:.3f}, {accuracy[1]:.3f}"
    return f"logits differ by at most {gap:.1e}; the accuracies are the same but for copies that are left out ({shown})"
