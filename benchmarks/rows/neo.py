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
    sizes=(6, 24),
    aims=(Faster(5, "TrojanZoo"), Faster(1, "TrojanZoo", ours="ours, fp32 only")),
    tried="Covering a region asks one question, and trying it elsewhere one a held-out image. Ours asks about many "
    "regions of many images at once, tries each on as few images as decide, and asks in bf16 first where that is "
    "faster (`screen=auto`), again in fp32 where the prediction leads by less than the precisions were ever apart.",
    rounds=3,
    allowance=60,
    devices=("cpu", "cuda"),
)


@ROW.inputs
def inputs(case: Case) -> None:
    _material.write(case, case.size + HELD_OUT)


def filtering(**settings: object) -> Callable:
    """A side of ours."""

    def prepare(case: Case) -> Callable:
        import torch

        from securitynet.detectors._fitted_filter import CleanImages
        from securitynet.detectors._queries import QueryClient
        from securitynet.detectors.neo import Neo

        found = torch.from_numpy(case.load(_material.IMAGES)["images"])
        incoming, held_out = found.split([case.size, HELD_OUT])
        neo = Neo(search="random", counted="all", held_out=HELD_OUT, regions=REGIONS, **settings)
        target = _material.target(case)

        def run() -> dict:
            # Anew each time: what was asked before would be known.
            filtering = neo.fitted(QueryClient(target), CleanImages(held_out, held_out[:0]))
            return {"flagged": filtering.judge(incoming).flagged}

        return run

    return prepare


ROW.side("ours")(filtering(screen="auto"))
ROW.side("ours, fp32 only")(filtering())


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
    theirs = found.get("TrojanZoo", found["ours"])["flagged"]
    for name, side in found.items():
        require(np.array_equal(side["flagged"], theirs), f"verdicts {side['flagged'].tolist()} of {name}")
    return f"the same {len(theirs)} verdicts, {int(theirs.sum())} stopped"
