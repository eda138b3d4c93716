"""Outputs of ResNet-20 for all images, as attacks read them, against a bare loop of forward passes.

Our side decodes nothing and reads no cache: a fresh target answers every image once, its outputs are written to the
cache, and the queries are counted. The bare loop is what anybody would write: evaluation mode, inference mode, batches.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from harness.row import AtMost, Row, near
from rows import _material

BATCH = 256

ROW = Row(
    "Signals: logits of every image",
    unit="images",
    sizes=(6_000, 60_000),
    aims=(AtMost(1.1, "bare loop"),),
    rounds=3,
    allowance=60,
    devices=("cpu", "cuda"),
)


@ROW.inputs
def inputs(case):
    _material.write(case, case.size)


@ROW.side("ours")
def ours(case):
    import torch

    from securitynet.datasets.base import ImageDataset
    from securitynet.models.signals import collect

    found = case.load(_material.IMAGES)
    dataset = ImageDataset("benchmark", torch.from_numpy(found["images"]), found["labels"], tuple("0123456789"), {})
    rows = np.arange(case.size)

    def run():
        cache = Path(tempfile.mkdtemp(dir=case.folder))
        try:
            return {"logits": collect(_material.target(case), dataset, rows, cache=cache).logits}
        finally:
            shutil.rmtree(cache)

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
    gap = near(found["ours"]["logits"], found["bare loop"]["logits"], 2e-3, "logits")
    return f"logits differ by at most {gap:.1e}"
