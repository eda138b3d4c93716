"""What the runner of studies adds to a trial: studies of trials that do nothing, whole commands.

The time of the smallest study is subtracted on our side: it is the same start of the same worker. What remains is the
way of a trial from the runner to the worker and back, with its files flushed to the disk. The other side only writes
and flushes two files a trial.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from harness.row import Row, Within, require
from rows._process import timed
from study_overhead import PLUGIN, noop_study

FEW = 1

ROW = Row(
    "Study: trials that do nothing",
    unit="trials",
    sizes=(200, 800),
    aims=(Within(10 * 800, size=800),),
    rounds=1,
    allowance=40,
)


@ROW.side("ours")
def ours(case):
    surroundings = {
        "PYTHONPATH": str(PLUGIN),
        "SECURITYNET_CACHE": str(case.folder / "cache"),
        "SECURITYNET_DATA": str(case.folder / "data"),
    }
    studies = {}
    for count in (FEW, case.size):
        place = case.folder / str(count)
        place.mkdir(exist_ok=True)
        studies[count] = noop_study(place, 1, count)

    def command(count, out):
        return timed(
            [
                *(sys.executable, "-m", "securitynet.cli.main", "study", "run", str(studies[count])),
                *("--out", str(out), "--workers", "1", "--device", case.device, "--trust", "python:m0.py:make"),
            ],
            surroundings,
        )

    with tempfile.TemporaryDirectory(dir=case.folder) as name:
        starts = [command(FEW, Path(name) / str(number)) for number in range(3)]

    def run():
        with tempfile.TemporaryDirectory(dir=case.folder) as name:
            whole = command(case.size, Path(name))
            trials = sum(1 for _ in (Path(name) / "trials").rglob("*.json"))
        return {
            "trials": trials,
            **{what: whole[what] - statistics.median(one[what] for one in starts) for what in ("seconds", "processor")},
            "peak": whole["peak"],
        }

    return run


@ROW.side("two flushed files a trial")
def writes(case):
    def run():
        place = Path(tempfile.mkdtemp(dir=case.folder))
        for number in range(case.size):
            for suffix in ("npz", "json"):
                with (place / f"{number}.{suffix}").open("wb") as stream:
                    stream.write(b"x" * 1000)
                    stream.flush()
                    os.fsync(stream.fileno())
        trials = sum(1 for _ in place.glob("*.json"))
        shutil.rmtree(place)
        return {"trials": trials}

    return run


@ROW.check
def check(case, found):
    for side, values in found.items():
        require(values["trials"] == case.size, f"{side} left {values['trials']} trials")
    return "each trial left its file"
