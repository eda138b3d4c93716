"""What a row of the table is made of. Read by each peer's environment too: it needs no more than numpy.

A row is one file in ``benchmarks/rows``. It declares a `Row`, and registers what belongs to it:

    ROW = Row("FGSM", unit="images", sizes=(256, 1024), aims=(AtMost(1.1, "bare loop"),))

    @ROW.inputs                           # once a size, in the project's environment: files for all sides
    def inputs(case): ...

    @ROW.side("ours")                     # in the project's environment
    def ours(case):
        ...                               # what is not timed
        return lambda: {"examples": ...}  # what is timed; its arrays are compared

    @ROW.side("torchattacks", environment="torchattacks")
    def torchattacks(case): ...

    @ROW.check                            # in the harness, on what the sides returned, before any time is taken
    def check(case, found): ...           # `require(...)`; returns words on what was found equal

Sides import what they need inside their functions: another environment has other packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
Run = Callable[[], Arrays]

PROJECT = "project"
"""The environment that runs this project; peers have environments of their own (``environments.toml``)."""


class Disagreement(Exception):
    """The sides did not compute the same thing, so their times must not be compared."""


def require(condition: object, message: str) -> None:
    """Raise `Disagreement` with the message unless the condition holds."""
    if not condition:
        raise Disagreement(message)


@dataclass(frozen=True)
class Case:
    """One row at one size.

    Attributes:
        folder: For the files that all sides read; its ``size`` and material are decided by ``inputs``.
        size: In the row's unit.
        device: ``cpu`` or ``cuda``.
        threads: That torch may use on each side.
        data: Folder with CIFAR-10 as Parquet files and checkpoints for it (``../shared/data``); None if it is absent.
    """

    folder: Path
    size: int
    device: str = "cpu"
    threads: int = 1
    data: Path | None = None

    def save(self, name: str, **arrays: Any) -> None:
        """Write arrays as ``name.npz``."""
        np.savez(self.folder / f"{name}.npz", **arrays)

    def load(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of ``name.npz``."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as archive:
            return dict(archive)


@dataclass(frozen=True)
class AtMost:
    """Our time is at most ``limit`` times that of the other side (a bare loop, or a peer)."""

    limit: float
    of: str
    ours: str = "ours"
    size: int | None = None

    def met(self, ratio: float) -> bool:
        """Whether a ratio ours / other meets it."""
        return ratio <= self.limit

    def __str__(self) -> str:
        return f"at most {self.limit:g} × {self.of}"


@dataclass(frozen=True)
class Faster:
    """The other side takes at least ``times`` times as long as ours."""

    times: float
    than: str
    ours: str = "ours"
    size: int | None = None

    @property
    def of(self) -> str:
        """The other side."""
        return self.than

    def met(self, ratio: float) -> bool:
        """Whether a ratio ours / other meets it."""
        return ratio * self.times <= 1

    def __str__(self) -> str:
        return f"{self.times:g} times faster than {self.than}" if self.times != 1 else f"not slower than {self.than}"


@dataclass(frozen=True)
class Within:
    """Our own side takes at most so many milliseconds a unit."""

    milliseconds: float
    size: int
    ours: str = "ours"

    def __str__(self) -> str:
        return f"at most {self.milliseconds:g} ms at {self.size:,}"


@dataclass(frozen=True)
class Holds:
    """Our own side holds at most so many MiB of memory."""

    mebibytes: float
    size: int
    ours: str = "ours"

    def __str__(self) -> str:
        return f"at most {self.mebibytes:,g} MiB at {self.size:,}"


Aim = AtMost | Faster | Within | Holds


@dataclass(frozen=True)
class Side:
    """One of those compared.

    Attributes:
        name: As the table shows it.
        environment: In which it runs: ``project``, or a name in ``environments.toml``.
        prepare: Makes all that is not timed, and returns what is.
    """

    name: str
    environment: str
    prepare: Callable[[Case], Run]


@dataclass
class Row:
    """A row of the table.

    Attributes:
        title: What is measured.
        unit: Of the sizes.
        sizes: Two or three, rising; the exponent of growth comes from them, the ratio shown from the last.
        aims: As stated in the issue of that part.
        tried: For a row that falls short: what was found and tried.
        rounds: At most this many of each side; fewer if the allowance runs out.
        allowance: Seconds for the rounds of one size. At least three runs of each side are made in any case.
        warm_up: Whether the first run of a side, which is compared, is left out of the times. Not where it takes long,
            or is a process of its own in any case.
        threads: For all sides; None takes the harness's.
        devices: On which it can run.
    """

    title: str
    unit: str
    sizes: tuple[int, ...]
    aims: tuple[Aim, ...] = ()
    tried: str = ""
    rounds: int = 5
    allowance: float = 30.0
    warm_up: bool = True
    threads: int | None = None
    devices: tuple[str, ...] = ("cpu",)
    sides: list[Side] = field(default_factory=list)
    make_inputs: Callable[[Case], None] = lambda case: None
    compare: Callable[[Case, dict[str, dict[str, np.ndarray]]], str] | None = None

    def inputs(self, function: Callable[[Case], None]) -> Callable[[Case], None]:
        """Register what writes the files that all sides read."""
        self.make_inputs = function
        return function

    def side(self, name: str, environment: str = PROJECT) -> Callable[[Callable[[Case], Run]], Callable[[Case], Run]]:
        """Register a side; ours comes first."""

        def register(function: Callable[[Case], Run]) -> Callable[[Case], Run]:
            self.sides.append(Side(name, environment, function))
            return function

        return register

    def check(self, function: Callable[[Case, Any], str]) -> Callable[[Case, Any], str]:
        """Register the comparison of what the sides returned."""
        self.compare = function
        return function


def near(first: np.ndarray, second: np.ndarray, tolerance: float, what: str) -> float:
    """Largest absolute difference of two arrays of one shape.

    Raises:
        Disagreement: If the shapes differ, or the difference is above the tolerance or no number.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    require(first.shape == second.shape, f"{what}: shapes {first.shape} and {second.shape}")
    gap = float(np.abs(first - second).max(initial=0.0))
    require(gap <= tolerance, f"{what}: differ by {gap:.2g}, more than {tolerance:g}")
    return gap
