"""STRIP: the same verdicts on the same superpositions, at TrojanZoo's defaults (64 overlays, blended half and half).

The images are clean, as nearly all that a filter sees in use. Ours knows its threshold from 60 other clean images and
hands it to TrojanZoo's entropies; both are given 64 images to lay over each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.row import Case, Faster, Row, near, require
from rows import _material

OVERLAYS = 64
TUNING = 60

ROW = Row(
    "STRIP, verdicts",
    unit="images",
    sizes=(16, 32, 64),
    aims=(Faster(5, "TrojanZoo"), Faster(1, "TrojanZoo", ours="ours, all entropies")),
    tried="Both sides' time is forward passes. "
    "Folding and batches that stay in the caches, overlays that tell most first, "
    "stopping for both verdicts, and bf16 with a second look near the threshold are in the product; fusing ReLU and "
    "additions into convolutions gained less than a tenth.",
    rounds=5,
    allowance=60,
    devices=("cpu", "cuda"),
)


@ROW.inputs
def inputs(case: Case) -> None:
    _material.write(case, case.size + TUNING + OVERLAYS)


def filtering(**settings: object) -> Callable:
    """A side of ours; thresholds are chosen before the clock starts, as a filter in use has them."""

    def prepare(case: Case) -> Callable:
        import torch

        from securitynet.detectors._filters import CleanImages
        from securitynet.detectors._questions import Questions
        from securitynet.detectors.strip import Strip

        found = torch.from_numpy(case.load(_material.IMAGES)["images"])
        incoming, tuning, pool = found.split([case.size, TUNING, OVERLAYS])
        strip = Strip(overlays=OVERLAYS, mix="blend", threshold="quantile", **settings)

        def fitted() -> object:
            return strip.fitted(Questions(_material.target(case)), CleanImages(tuning, pool))

        ready = fitted()

        def run() -> dict:
            judged = ready.judge(incoming)
            return {"flagged": judged.flagged, "scores": judged.scores, "threshold": np.array(-ready.threshold)}

        return run

    return prepare


ROW.side("ours")(filtering(stop_early=True, screen="bf16"))
ROW.side("ours, fp32 only")(filtering(stop_early=True))
ROW.side("ours, all entropies")(filtering())


@ROW.side("TrojanZoo", environment="trojanzoo")
def trojanzoo(case: Case) -> Callable:
    import torch

    from rows import _trojanzoo

    images, _ = _material.images(case)
    incoming, _, pool = images.split([case.size, TUNING, OVERLAYS])
    peer = _trojanzoo.strip(_material.network(case), pool)

    def run() -> dict:
        with torch.no_grad():
            return {"scores": -peer.get_score(incoming).double().cpu().numpy() / math.log(2)}

    return run


@ROW.check
def check(case: Case, found: dict) -> str:
    complete = found["ours, all entropies"]
    peer = found.get("TrojanZoo", complete)  # if it failed, that is told apart
    gap = near(complete["scores"], peer["scores"], 1e-3, "entropies")
    theirs = -peer["scores"] < float(complete["threshold"])
    for name in ("ours", "ours, fp32 only", "ours, all entropies"):
        near(found[name]["threshold"], complete["threshold"], 1e-9, f"threshold of {name}")
        require(np.array_equal(found[name]["flagged"], theirs), f"verdicts of {name} differ from TrojanZoo's")
    return f"the same {len(theirs)} verdicts ({int(theirs.sum())} stopped); entropies differ by {gap:.1g} bits at most"
