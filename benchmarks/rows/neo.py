"""NEO with regions drawn at random, as TrojanZoo draws them, and the same threshold.

Each side draws its own regions, so single verdicts may differ where the trigger region is only just decisive. Both
cover a quarter of the 200 regions that are usual: TrojanZoo takes its time with more.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np

from harness.row import Case, Faster, Row, require
from rows import _material

REGIONS = 50
HELD_OUT = 50

ROW = Row(
    f"NEO, {REGIONS} regions an image, {HELD_OUT} held out",
    unit="images",
    sizes=(3, 6, 12),
    aims=(Faster(5, "TrojanZoo"),),
    rounds=5,
    allowance=60,
    devices=("cpu", "cuda"),
)


@ROW.inputs
def inputs(case: Case) -> None:
    _material.write(case, case.size + HELD_OUT)


@ROW.side("ours")
def ours(case: Case) -> Callable:
    import torch

    from securitynet.detectors._filters import CleanImages
    from securitynet.detectors._questions import Questions
    from securitynet.detectors.neo import Neo

    found = torch.from_numpy(case.load(_material.IMAGES)["images"])
    incoming, held_out = found.split([case.size, HELD_OUT])
    neo = Neo(search="random", counted="all", held_out=HELD_OUT, regions=REGIONS)
    target = _material.target(case)

    def run() -> dict:
        # Anew each time: what was asked before would be known.
        filtering = neo.fitted(Questions(target), CleanImages(held_out, held_out[:0]))
        return {"flagged": filtering.judge(incoming).flagged}

    return run


@ROW.side("TrojanZoo", environment="trojanzoo")
def trojanzoo(case: Case) -> Callable:
    import torch

    from rows import _trojanzoo

    images, _ = _material.images(case)
    incoming, held_out = images.split([case.size, HELD_OUT])
    decide = _trojanzoo.neo(_material.network(case), held_out, REGIONS)

    def run() -> dict:
        torch.manual_seed(0)
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            return {"flagged": np.array([bool(decide(image)) for image in incoming])}

    return run


@ROW.check
def check(case: Case, found: dict) -> str:
    mine, theirs = found["ours"]["flagged"], found.get("TrojanZoo", found["ours"])["flagged"]
    require(np.array_equal(mine, theirs), f"verdicts {mine.tolist()} and {theirs.tolist()}")
    return f"the same {len(mine)} verdicts, {int(mine.sum())} stopped"
