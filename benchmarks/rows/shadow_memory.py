"""LiRA with 16 shadow models on many records and 1,000 classes: `shadow_memory.py`, whose peak memory counts."""

from __future__ import annotations

import sys

from harness.environments import BENCHMARKS
from harness.row import Holds, Row
from rows._process import timed

ROW = Row(
    "LiRA's memory: 16 shadow models, 1,000 classes",
    unit="records",
    sizes=(60_000,),
    aims=(Holds(2 * 10**9 / 2**20, size=60_000),),
    tried="The outputs of all shadow models would take 3.8 GB (4 · 16 · 60,000 · 1,000 bytes). The models are linear, "
    "trained for one epoch on random images: only the sizes matter.",
    rounds=1,
    warm_up=False,
)


@ROW.side("ours")
def ours(case):
    command = [sys.executable, str(BENCHMARKS / "shadow_memory.py"), "--records", str(case.size)]
    return lambda: timed(command)
