"""A row that is in no table: the tests of the harness run it."""

from __future__ import annotations

import os

import numpy as np

from harness.row import AtMost, Faster, Row, Within, near

ROW = Row(
    "Sum",
    unit="numbers",
    sizes=(1_000, 100_000),
    aims=(Faster(2, "loop"), AtMost(1.1, "loop"), Within(1000, size=1_000)),
    rounds=3,
    threads=1,
)


@ROW.inputs
def inputs(case):
    case.save("numbers", numbers=np.arange(case.size, dtype=np.float64))


@ROW.side("ours")
def ours(case):
    numbers = case.load("numbers")["numbers"]
    return lambda: {"sum": numbers.sum()}


@ROW.side("loop")
def loop(case):
    numbers = case.load("numbers")["numbers"].tolist()
    return lambda: {"sum": sum(numbers)}


@ROW.side("wrong")
def wrong(case):
    return lambda: {"sum": -1.0}


@ROW.side("broken")
def broken(case):
    raise ValueError("no such thing")


@ROW.side("dead")
def dead(case):
    return lambda: os._exit(7)


@ROW.check
def check(case, found):
    for side, values in found.items():
        near(values["sum"], found["ours"]["sum"], 0, f"sum of {side}")
    return "equal sums"
