"""Seconds until a fresh interpreter has imported a package and ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

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
    rounds=5,
    allowance=90,
)


def importing(module: str) -> Callable:
    """A side that imports a module, and finds it loaded."""

    def prepare(case):
        code = f"import sys, {module}; sys.exit({module!r} not in sys.modules)"
        return lambda: timed([sys.executable, "-c", code])

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
