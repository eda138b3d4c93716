"""Neural Cleanse on a ResNet-18 with 200 and 1,000 classes: labels in blocks, all screened, some searched in full.

`trigger_memory.py` in a process of its own, whose peak memory counts. The bare loop is as many forward and backward
passes as its search takes, in batches of the same size.
"""

from __future__ import annotations

import sys

from harness.environments import BENCHMARKS
from harness.row import Holds, Row
from rows._process import timed

SIDE, IMAGES, EPOCHS, SCREENED = 64, 8, 2, 1
CONTINUED = 16 + 41
"""Labels that are searched in full: the lowest, and a random sample."""

ROW = Row(
    "Neural Cleanse, 200 and 1,000 classes, 64×64",
    unit="classes",
    sizes=(200, 1_000),
    aims=(Holds(2000, size=1_000),),
    rounds=1,
    warm_up=False,
)


@ROW.side("ours")
def ours(case):
    settings = {"classes": case.size, "side": SIDE, "images": IMAGES, "epochs": EPOCHS, "screen-epochs": SCREENED}
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return lambda: timed([sys.executable, str(BENCHMARKS / "trigger_memory.py"), *options])


@ROW.side("bare loop")
def bare(case):
    import torch

    from securitynet.torchvision_cure import import_torchvision

    torch.set_num_threads(1)  # as the script does
    network = import_torchvision("torchvision.models").resnet18(num_classes=case.size).eval().requires_grad_(False)
    images = torch.rand(IMAGES, 3, SIDE, SIDE)
    passes = case.size * SCREENED + min(CONTINUED, case.size) * (EPOCHS - SCREENED)

    def run():
        for label in range(passes):
            leaf = images.clone().requires_grad_()
            wanted = torch.full((IMAGES,), label % case.size)
            torch.autograd.grad(torch.nn.functional.cross_entropy(network(leaf), wanted), leaf)
        return {"passes": passes}

    return run


@ROW.check
def check(case, found):
    return f"{found['bare loop']['passes']:,} passes of {IMAGES} images"
