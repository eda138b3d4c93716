"""STRIP: the same verdicts on the same superpositions, at TrojanZoo's defaults (64 overlays, blended half and half).

The images are clean, as nearly all that a filter sees in use; some are stopped. Ours knows its threshold from 120
other clean images and hands it to the entropies of TrojanZoo, which takes 100 images a batch, its default; both are
given 64 images to lay over each. Our process keeps freed memory, as that of `securitynet assess` does. Outside the
clock both judge a quarter as many images of the kind that is stopped: of 320 others, those that keep the surest
prediction under the first overlays.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.row import Case, Faster, Row, near, require
from rows import _material

OVERLAYS = 64
TUNING = 120
CANDIDATES = 320
LOOKED = 8
"""Overlays under which the surest of the candidates are looked for."""
STOPPED = "suspicious"
BATCH = 100
"""Of TrojanZoo."""

ROW = Row(
    "STRIP, verdicts",
    unit="images",
    sizes=(32, 128),
    aims=(Faster(5, "TrojanZoo"), Faster(1, "TrojanZoo", ours="ours, all entropies")),
    tried="Both sides' time is forward passes. In the product are folding and batches that stay in the caches, sums "
    "and ReLUs in place, overlays that tell most first, stopping for both verdicts, passing by prediction with a "
    "measured margin, bf16 with a second look near the threshold where the processor has AMX, calls large enough for "
    "all cores, keeping freed memory for the next batch, and keeping torch's idle threads from looping on cores that "
    "compute. Overlays chosen for each image from what it showed under the first, and fusing ReLU and additions into "
    "convolutions, gained little.",
    rounds=3,
    allowance=60,
    devices=("cpu", "cuda"),
)


@ROW.inputs
def inputs(case: Case) -> None:
    import torch

    total = case.size + TUNING + OVERLAYS
    _material.write(case, total + CANDIDATES)
    found = case.load(_material.IMAGES)
    case.save(_material.IMAGES, images=found["images"][:total], labels=found["labels"][:total])
    candidates = torch.from_numpy(found["images"][total:])
    pool = torch.from_numpy(found["images"][total - OVERLAYS : total][:LOOKED]).float() / 255
    target, entropies = _material.target(case), torch.zeros(CANDIDATES)
    for overlay in pool:
        entropies += torch.special.entr(target.posteriors(0.5 * candidates.float() / 255 + 0.5 * overlay)).sum(dim=1)
    case.save(STOPPED, images=candidates[entropies.argsort()[: case.size // 4]].numpy())


def filtering(**settings: object) -> Callable:
    """A side of ours; thresholds are chosen before the clock starts, as a filter in use has them."""

    def prepare(case: Case) -> Callable:
        import torch

        from securitynet.detectors._fitted_filter import CleanImages
        from securitynet.detectors._queries import QueryClient
        from securitynet.detectors.strip import Strip
        from securitynet.memory import keep_freed_memory

        keep_freed_memory()
        found = torch.from_numpy(case.load(_material.IMAGES)["images"])
        incoming, tuning, pool = found.split([case.size, TUNING, OVERLAYS])
        strip = Strip(overlays=OVERLAYS, mix="blend", threshold="quantile", **settings)

        def fitted() -> object:
            return strip.fitted(QueryClient(_material.target(case)), CleanImages(tuning, pool))

        ready = fitted()
        others = ready.judge(torch.from_numpy(case.load(STOPPED)["images"]))
        known = {"others": others.flagged, "other scores": others.scores, "threshold": np.array(-ready.threshold)}

        def run() -> dict:
            judged = ready.judge(incoming)
            return {"flagged": judged.flagged, "scores": judged.scores, **known}

        return run

    return prepare


ROW.side("ours")(filtering(stop_early="likely", screen="auto"))
ROW.side("ours, certain")(filtering(stop_early="certain", screen="auto"))
ROW.side("ours, certain, fp32 only")(filtering(stop_early="certain"))
ROW.side("ours, all entropies")(filtering())


@ROW.side("TrojanZoo", environment="trojanzoo")
def trojanzoo(case: Case) -> Callable:
    import torch

    from rows import _trojanzoo

    images, _ = _material.images(case)
    incoming, _, pool = images.split([case.size, TUNING, OVERLAYS])
    peer = _trojanzoo.strip(_material.network(case), pool)

    def scores(asked: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return -peer.get_score(asked).double().cpu().numpy() / math.log(2)

    others = scores(torch.from_numpy(case.load(STOPPED)["images"]).to(incoming).div(255))

    def run() -> dict:
        found = np.concatenate([scores(part) for part in incoming.split(BATCH)])
        return {"scores": found, "other scores": others}

    return run


@ROW.check
def check(case: Case, found: dict) -> str:
    complete = found["ours, all entropies"]
    peer = found.get("TrojanZoo", complete)  # if it failed, that is told apart
    gap = near(complete["scores"], peer["scores"], 1e-3, "entropies")
    near(complete["other scores"], peer["other scores"], 1e-3, "entropies of suspicious images")
    bound = float(complete["threshold"])
    theirs, others = -peer["scores"] < bound, -peer["other scores"] < bound
    for name in ("ours", "ours, certain", "ours, certain, fp32 only", "ours, all entropies"):
        near(found[name]["threshold"], complete["threshold"], 1e-9, f"threshold of {name}")
        require(np.array_equal(found[name]["flagged"], theirs), f"verdicts of {name} differ from TrojanZoo's")
        require(np.array_equal(found[name]["others"], others), f"verdicts of {name} on suspicious images differ")
    return (
        f"the same {len(theirs)} verdicts ({int(theirs.sum())} stopped), and {len(others)} outside the clock "
        f"({int(others.sum())} stopped); entropies differ by {gap:.1g} bits at most"
    )
