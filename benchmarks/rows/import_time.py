"""Seconds until a fresh interpreter has imported a package and ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from harness.environments import BENCHMARKS
from harness.row import Faster, Row, Within, require
from rows._process import timed

PEERS = {
    "ART": ("art", "art.attacks.evasion"),
    "torchattacks": ("torchattacks", "torchattacks"),
    "foolbox": ("foolbox", "foolbox"),
    "TrojanZoo": ("trojanzoo", "trojanvision"),
    "Opacus": ("opacus", "opacus"),
    "timm": ("timm", "timm"),
}

ROW = Row(
    "Import",
    unit="imports",
    sizes=(1,),
    aims=(Within(500, size=1), Within(500, size=1, ours="securitynet --help"), *(Faster(1, name) for name in PEERS)),
    rounds=3,
    allowance=90,
)


# What these import does not fit this machine's builds in every case: what mends that comes first, for them alone.
MENDED = {
    "torchattacks": "from rows._torchvision import imported; imported('torchattacks')",
    "timm": "from rows._torchvision import imported; imported('timm')",
    "trojanvision": "from rows._trojanzoo import make_importable; make_importable(); import trojanvision",
}


def importing(module: str) -> Callable:
    """A side that imports a module, and finds it loaded."""

    def prepare(case):
        lines = [f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})"] if module in MENDED else ["import sys"]
        lines += [MENDED.get(module, f"import {module}"), f"sys.exit({module!r} not in sys.modules)"]
        return lambda: timed([sys.executable, "-c", "\n".join(lines)])

    return prepare


ROW.side("ours")(importing("securitynet"))


@ROW.side("securitynet --help")
def usage(case):
    return lambda: timed([sys.executable, "-m", "securitynet.cli.main", "--help"])


for _name, (_environment, _module) in PEERS.items():
    ROW.side(_name, environment=_environment)(importing(_module))


@ROW.check
def check(case, found):
    require(all(side["seconds"] > 0 for side in found.values()), "a side took no time")
    return "each interpreter ended well, with its package loaded"
