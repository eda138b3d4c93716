"""A plug-in for tests of studies: an attack that does nothing, or something terrible."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from securitynet.attacks.base import Attack
from securitynet.methods.base import SharedWork
from securitynet.methods.output import Output
from securitynet.metrics import rates
from securitynet.records import Access, Auxiliary, Direction, ThreatModel


class Nothing(Output):
    def __init__(self, number: int) -> None:
        self.number = number

    def arrays(self):
        return {"number": np.array([self.number])}

    @classmethod
    def from_arrays(cls, arrays):
        return cls(int(arrays["number"][0]))

    def measurements(self, *, level, fprs, seed):
        share = rates.rate("share", self.number % 50, 50, direction=Direction.LOWER, level=level)
        return [share, *(rates.rate(f"tpr@fpr={fpr:g}", 1, 2, direction=Direction.LOWER, level=level) for fpr in fprs)]


class Noop(Attack):
    """Does what its mode says."""

    output: ClassVar[type[Output]] = Nothing
    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW),
    )
    costs: ClassVar[str | None] = "is for tests"
    number: int = 0
    mode: str = "ok"
    seconds: float = 0.0
    shares: tuple[str, ...] = ()
    shared_mode: str = "ok"

    def shared_work(self, target, data, context) -> Sequence[SharedWork]:
        def make(key):
            def run(progress):
                misbehave(self.shared_mode, key)
                log("shared", key)
                time.sleep(self.seconds)
                (Path(os.environ["NOOP_FOLDER"]) / f"shared-{key}").touch()

            return SharedWork(key, f"piece {key}", run)

        return [make(key) for key in self.shares]

    def run(self, target, data, context):
        for key in self.shares:
            assert (Path(os.environ["NOOP_FOLDER"]) / f"shared-{key}").exists()
        if context.progress:
            context.progress(1, 2)
        misbehave(self.mode, f"{self.number}-{context.seed}")
        time.sleep(self.seconds)
        log("ran", f"{self.number}-{context.seed}")
        return Nothing(self.number + context.seed)


class Together(Noop):
    """Runs on several targets in one task, and does on one of them what its mode says.

    Attributes:
        bad: Part of the reference of that target.
        when: Where it does so: while all run together, or also while it runs alone, or while the output is stored.
    """

    exact_together: ClassVar[bool] = True
    bad: str = "nothing"
    when: str = "together"

    def run_together(self, cases):
        log("together", "+".join(target.reference for target, _, _ in cases))
        outputs = []
        for target, _, context in cases:
            if self.bad in target.reference and self.when != "storing":
                misbehave(self.mode, target.reference)
            outputs.append(Stored(self.number + context.seed))
            if self.bad in target.reference and self.when == "storing":
                outputs[-1].mode = self.mode
        return outputs

    def run(self, target, data, context):
        log("alone", target.reference)
        if self.bad in target.reference and self.when == "always":
            misbehave(self.mode, target.reference)
        return Nothing(self.number + context.seed)


class Stored(Nothing):
    mode = "ok"

    def measurements(self, *, level, fprs, seed):
        misbehave(self.mode, "storing")
        return super().measurements(level=level, fprs=fprs, seed=seed)


def log(what: str, key: object) -> None:
    if "NOOP_FOLDER" in os.environ:
        with (Path(os.environ["NOOP_FOLDER"]) / f"{what}.log").open("a") as stream:
            stream.write(f"{key}\n")


def misbehave(mode: str, key: str) -> None:
    if mode.startswith("once-"):
        mark = Path(os.environ["NOOP_FOLDER"]) / f"did-{key}"
        mode = "ok" if mark.exists() else mode.removeprefix("once-")
        mark.touch()
    if mode == "raise":
        raise RuntimeError("it was meant to fail")
    if mode == "exit":
        os._exit(7)
    if mode == "segv":
        ctypes.string_at(0)
    if mode == "kill":
        os.kill(os.getpid(), 9)
    if mode == "hang":
        time.sleep(3600)
    if mode == "memory":
        hoard = []
        for _ in range(64):  # up to 8 GiB
            hoard.append(np.ones(1 << 24))
            time.sleep(0.1)
        raise AssertionError(len(hoard))
    if mode == "print":
        print('{"outcome": 1}\n' * 100, flush=True)
