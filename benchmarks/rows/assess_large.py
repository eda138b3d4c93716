"""A ResNet-50 with 1,000 classes on 5,000 JPEG files of odd sizes, through `securitynet assess`, and a bare loop.

The command is timed whole: imports, decoding, forward passes, the metric attacks on membership with their controls,
report. The bare loop is a forward pass over images that are decoded already, by the original network in evaluation and
inference mode, over a fifth of them; its time counts five times. Evasion is left out: FGSM computes gradients and
queries each image three times more.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.row import AtMost, Holds, Row, require
from rows._process import timed

CLASSES, SIDE, RESIZED = 1000, 224, 256
ATTACKS = ("confidence", "correctness", "entropy", "loss", "modified-entropy")
BATCH = 16
"""Of the bare loop."""
EVERY = 5
"""The bare loop takes one image of so many."""

FACTORY = """
import torch
from securitynet.torchvision_cure import import_torchvision

def make():
    torch.manual_seed(0)
    return import_torchvision("torchvision.models").resnet50(num_classes={classes})
"""

ROW = Row(
    "Assess ResNet-50, 224×224, 1,000 classes",
    unit="images",
    sizes=(5_000,),
    aims=(
        AtMost(1.15, "bare loop", ours="ours: first assess"),
        Holds(3000 * 10**6 / 2**20, size=5_000, ours="ours: first assess"),
        AtMost(0.15, "bare loop", ours="ours: second assess"),
    ),
    rounds=1,  # minutes a run
    warm_up=False,
)


@ROW.inputs
def inputs(case):
    """Files in class folders, three fifths of each class for training."""
    from PIL import Image

    classes = min(CLASSES, case.size // 5)
    (case.folder / "network.py").write_text(FACTORY.format(classes=classes))
    folder = case.folder / "images"
    if folder.exists():
        return
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=case.folder) as name:
        for number in range(case.size):
            part = "train" if number % 5 < 3 else "test"
            place = Path(name) / "images" / part / f"{number // 5 % classes:04d}"
            place.mkdir(parents=True, exist_ok=True)
            colours = Image.fromarray(random.integers(0, 256, (14, 14, 3), dtype=np.uint8))
            width, height = (int(side) for side in random.integers(SIDE, SIDE + 120, 2))
            colours.resize((width, height), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=85)
        (Path(name) / "images").rename(folder)


def command(case, out, cache):
    return timed(
        [
            *(sys.executable, "-m", "securitynet.cli.main", "assess", f"python:{case.folder / 'network.py'}:make"),
            *("--dataset", f"folder:{case.folder / 'images'}", "--resize", str(RESIZED), "--crop", str(SIDE)),
            *(
                "--attacks",
                ",".join(ATTACKS),
                "--normalize",
                "imagenet",
                "--device",
                case.device,
                "--out",
                str(out),
                "--cache",
                str(cache),
            ),
        ]
    )


def predictions(out):
    """Records and the classes predicted for them."""
    with (out / "exposed.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(int(row["record"]), int(row["prediction"])) for row in csv.DictReader(stream)]
    return {"records": [record for record, _ in rows], "predicted": [predicted for _, predicted in rows]}


@ROW.side("ours: first assess")
def first(case):
    """With an empty cache, which the second assessment then finds."""
    cache = case.folder / "cache"

    def run():
        shutil.rmtree(cache, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=case.folder) as name:
            return {**command(case, Path(name), cache), **predictions(Path(name))}

    return run


@ROW.side("ours: second assess")
def second(case):
    def run():
        with tempfile.TemporaryDirectory(dir=case.folder) as name:
            return {**command(case, Path(name), case.folder / "cache"), **predictions(Path(name))}

    return run


@ROW.side("bare loop")
def bare(case):
    import runpy

    import torch

    from securitynet.datasets import load

    network = runpy.run_path(str(case.folder / "network.py"))["make"]().eval()
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    reference = f"folder:{case.folder / 'images'}"
    dataset = load(reference, resize=RESIZED, crop=SIDE, cache=case.folder.parent / "decoded")
    records = np.arange(0, len(dataset), EVERY)
    images = torch.from_numpy(dataset.batch(records).numpy().copy())

    def run():
        predicted = []
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in images.split(BATCH):
                predicted.append(network((batch.float() / 255 - mean) / deviation).argmax(dim=1))
        seconds = (time.perf_counter() - started) * len(dataset) / len(records)
        return {"seconds": seconds, "records": records, "predicted": torch.cat(predicted).numpy()}

    return run


@ROW.check
def check(case, found):
    bare = dict(zip(*(np.asarray(found["bare loop"][name]).tolist() for name in ("records", "predicted")), strict=True))
    most = 0.0
    for name in ("ours: first assess", "ours: second assess"):
        records, predicted = (np.asarray(found[name][column]).tolist() for column in ("records", "predicted"))
        both = [(mine, bare[record]) for record, mine in zip(records, predicted, strict=True) if record in bare]
        require(len(both) >= 0.95 * len(bare), f"{name} lists {len(both)} of {len(bare)} records")
        most = max(most, sum(mine != other for mine, other in both) / len(both))
        require(most <= 0.01, f"{name} predicts another class for {most:.1%} of the records")
    return f"another class is predicted for {most:.2%} of the records at most, by random weights"
