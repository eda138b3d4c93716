"""Measures one row: equal results first, then the sides in turns."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.environments import BENCHMARKS, Environment, EnvironmentFailed
from harness.row import PROJECT, AtMost, Case, Disagreement, Faster, Holds, Row, Within
from harness.session import Session, SideFailed

LEAST_ROUNDS = 3


@dataclass
class Timing:
    """One side at one size, a value a round.

    Attributes:
        seconds: Wall clock.
        processor: Seconds of all its threads.
        peak: Bytes that its process held at most, the libraries that it imports included.
    """

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peak: int = 0

    def add(self, answer: dict[str, Any]) -> None:
        """One more round, as a session answers it."""
        self.seconds.append(answer["seconds"])
        self.processor.append(answer["processor"])
        self.peak = max(self.peak, answer["peak"])

    @property
    def median(self) -> float:
        """Of the wall clock."""
        return statistics.median(self.seconds)


@dataclass
class Sized:
    """All sides at one size.

    Attributes:
        size: In the row's unit.
        agreement: In words, what was found equal before any time was taken.
        timings: By side.
        load: Of the machine when it began: the average number of processes that wanted to run in the last minute.
    """

    size: int
    agreement: str
    timings: dict[str, Timing]
    load: float


@dataclass
class Judged:
    """An aim, and what came out.

    Attributes:
        aim: In words.
        ratio: Ours / other (the median of the rounds' ratios), its lowest and its highest; or milliseconds, or MiB.
        met: Whether the median meets it.
    """

    aim: str
    ratio: tuple[float, float, float]
    met: bool


@dataclass
class Measured:
    """A row with its results.

    Attributes:
        name: Of its file.
        title: What was measured.
        unit: Of the sizes.
        threads: Of each side.
        versions: By side.
        sized: Smallest first.
        growth: Exponent of the time by side: time ~ size^exponent. Empty with one size.
        aims: As stated, with what came out.
        tried: What the row's file says of a shortfall.
        failure: Why there are no, or not all, results; empty if all went well.
        seconds: That the row took in all.
        revision: Commit of the checkout that measured it.
    """

    name: str
    title: str
    unit: str
    threads: int
    versions: dict[str, str] = field(default_factory=dict)
    sized: list[Sized] = field(default_factory=list)
    growth: dict[str, float] = field(default_factory=dict)
    aims: list[Judged] = field(default_factory=list)
    tried: str = ""
    failure: str = ""
    seconds: float = 0.0
    revision: str = ""

    def as_json(self) -> dict:
        """Plain values."""
        return asdict(self)


def measure(
    name: str,
    row: Row,
    *,
    folder: Path,
    find: Callable[[str], Environment],
    device: str,
    threads: int,
    data: Path | None,
    rounds: int | None = None,
    sizes: tuple[int, ...] | None = None,
    tell: Callable[[str], None] = print,
) -> Measured:
    """Measure a row.

    Args:
        name: Of its file.
        row: What it declares.
        folder: For its files.
        find: Yields an environment by name.
        device: ``cpu`` or ``cuda``.
        threads: Of each side, unless the row says otherwise.
        data: See `Case`.
        rounds: In place of the row's.
        sizes: In place of the row's.
        tell: Takes progress.
    """
    started = time.perf_counter()
    found = Measured(name, row.title, row.unit, row.threads or threads, tried=row.tried)
    failures: dict[str, str] = {}
    try:
        places = {side.name: find(side.environment) for side in row.sides}
        found.versions = {side: place.version for side, place in places.items()}
        for size in sizes or row.sizes:
            case_folder = folder / name / f"{device}-{size}"
            case_folder.mkdir(parents=True, exist_ok=True)
            case = Case(case_folder.resolve(), size, device, found.threads, data)
            found.sized.append(
                _at_one_size(name, row, case, places, find(PROJECT), rounds or row.rounds, tell, failures)
            )
    except (Disagreement, SideFailed, EnvironmentFailed) as error:
        failures[type(error).__name__] = str(error)
    told = "\n".join(f"{what}: {why}" for what, why in failures.items())
    found.failure = told.replace(str(BENCHMARKS.parent), ".").replace(str(folder.parent), ".")  # no machine's paths
    found.growth = growth(found.sized)
    found.aims = [judged for aim in row.aims if (judged := _judge(aim, found.sized)) is not None]
    found.seconds = time.perf_counter() - started
    return found


def _at_one_size(
    name: str,
    row: Row,
    case: Case,
    places: dict[str, Environment],
    project: Environment,
    rounds: int,
    tell: Callable[[str], None],
    failures: dict[str, str],
) -> Sized:
    with Session(project, name, case) as session:
        session.inputs()
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        sessions = {side: stack.enter_context(Session(place, name, case)) for side, place in places.items()}
        outputs = {}
        timings: dict[str, Timing] = {}
        for number, (side, session) in enumerate(list(sessions.items())):
            path = case.folder / f"out-{number}.npz"
            try:
                session.prepare(side)
                first = session.run(path)
            except SideFailed as error:
                if number == 0:
                    raise
                failures[f"{side} at {case.size:,}"] = str(error)
                del sessions[side]
                continue
            timings[side] = Timing()
            if not row.warm_up:
                timings[side].add(first)
            with np.load(path, allow_pickle=False) as archive:
                outputs[side] = dict(archive)
        try:
            agreement = "" if row.compare is None else row.compare(case, outputs)
        except KeyError as error:  # a side that failed has nothing to be compared
            raise Disagreement(f"nothing of {error} to compare") from error
        tell(f"  {case.size:,} {row.unit}: {agreement or 'one side only'}")
        least = LEAST_ROUNDS if row.warm_up else LEAST_ROUNDS - 1
        started = time.perf_counter()
        for number in range(0 if row.warm_up else 1, rounds):
            if number >= min(least, rounds) and time.perf_counter() - started > row.allowance:
                break
            # Each round begins with another side, so that none always follows the same one.
            order = list(sessions)[number % len(sessions) :] + list(sessions)[: number % len(sessions)]
            for side in order:
                timings[side].add(sessions[side].run())
    for side, timing in timings.items():
        tell(f"    {side}: {timing.median:.3f} s ({min(timing.seconds):.3f} to {max(timing.seconds):.3f})")
    return Sized(case.size, agreement, timings, load)


def ratios(sized: Sized, ours: str, other: str) -> tuple[float, float, float]:
    """Ours / other: the median of the rounds' ratios, the lowest and the highest."""
    pairs = zip(sized.timings[ours].seconds, sized.timings[other].seconds, strict=True)
    values = [first / second for first, second in pairs]
    return statistics.median(values), min(values), max(values)


def growth(sized: list[Sized]) -> dict[str, float]:
    """The exponent of each side's time: slope of log(median seconds) over log(size), by least squares."""
    if len(sized) < 2:
        return {}
    sizes = [math.log(one.size) for one in sized]
    return {
        side: statistics.linear_regression(sizes, [math.log(one.timings[side].median) for one in sized]).slope
        for side in sized[0].timings
        if all(side in one.timings and one.timings[side].median > 0 for one in sized)
    }


def _judge(aim: AtMost | Faster | Within | Holds, sized: list[Sized]) -> Judged | None:
    """The aim at its size, or at the largest one that was measured; None if there is none."""
    names = {aim.ours} if isinstance(aim, Within | Holds) else {aim.ours, aim.of}
    fitting = [one for one in sized if aim.size in (None, one.size) and names <= one.timings.keys()]
    if not fitting:
        return None
    last = fitting[-1]
    if isinstance(aim, Within):
        values = [1000 * seconds for seconds in last.timings[aim.ours].seconds]
        middle = statistics.median(values)
        return Judged(str(aim), (middle, min(values), max(values)), middle <= aim.milliseconds)
    if isinstance(aim, Holds):
        peak = last.timings[aim.ours].peak / 2**20
        return Judged(str(aim), (peak, peak, peak), peak <= aim.mebibytes)
    ratio = ratios(last, aim.ours, aim.of)
    return Judged(str(aim), ratio, aim.met(ratio[0]))
