"""Seconds of the tests by layer, beside those of earlier runs in `tests/times.csv`.

    make test                                    # leaves .test-times.xml
    python tools/track_test_times.py             # the last run beside the last recorded one
    make times                                   # records it

A layer is a folder of `tests`, or `tests` itself. The seconds are wall clock inside tests, added over the processes
that share the cores: compare runs on the same machine only.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
COLUMNS = ("date", "commit", "machine", "layer", "tests", "seconds")


@dataclass(frozen=True)
class Total:
    """Tests of a layer, and the seconds inside them."""

    tests: int
    seconds: float


def read_totals(report: Path) -> dict[str, Total]:
    """Totals by layer of a JUnit report as pytest writes it, the slowest first.

    Raises:
        SystemExit: If there is no such file, or it names no tests.
    """
    try:
        cases = ElementTree.parse(report).getroot().iter("testcase")
    except (OSError, ElementTree.ParseError) as error:
        raise SystemExit(f"{report.name} cannot be read: {error}. `make test` writes it.") from None
    tests: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    for case in cases:
        parts = case.get("classname", "").split(".")
        # tests.analysis.test_figures is in `analysis`; tests.test_kills in `tests`.
        layer = parts[1] if len(parts) > 2 and not parts[1].startswith("test_") else "tests"
        tests[layer] += 1
        seconds[layer] += float(case.get("time", 0))
    if not tests:
        raise SystemExit(f"{report.name} names no tests.")
    return {
        layer: Total(tests[layer], round(seconds[layer], 1))
        for layer in sorted(seconds, key=lambda name: -seconds[name])
    }


def read_last(history: Path) -> tuple[str, dict[str, Total]]:
    """What the last recorded run is called, and its totals; nothing if none is recorded."""
    if not history.exists():
        return "", {}
    with history.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return "", {}
    last = (rows[-1]["date"], rows[-1]["commit"], rows[-1]["machine"])
    found = {
        row["layer"]: Total(int(row["tests"]), float(row["seconds"]))
        for row in rows
        if (row["date"], row["commit"], row["machine"]) == last
    }
    return ", ".join(last), found


def describe(now: Mapping[str, Total], name: str, before: Mapping[str, Total]) -> str:
    """A table of the layers, with the recorded seconds where there are any."""
    lines = [f"{'layer':16s} {'tests':>6s} {'seconds':>8s}" + (f" {'recorded':>9s}   ({name})" if before else "")]
    for layer, total in now.items():
        line = f"{layer:16s} {total.tests:6d} {total.seconds:8.1f}"
        lines.append(line + (f" {before[layer].seconds:9.1f}" if layer in before else ""))
    both = [("all", now), *((("recorded", before),) if before else ())]
    sums = ", ".join(
        f"{title}: {sum(total.tests for total in totals.values())} tests, "
        f"{sum(total.seconds for total in totals.values()):.0f} s"
        for title, totals in both
    )
    return "\n".join([*lines, sums])


def record(history: Path, now: Mapping[str, Total], facts: tuple[str, str, str]) -> None:
    """Append a run."""
    fresh = not history.exists()
    with history.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        for layer, total in now.items():
            writer.writerow((*facts, layer, total.tests, total.seconds))


def find_facts() -> tuple[str, str, str]:
    """Date, commit and the machine's class."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return datetime.date.today().isoformat(), commit or "unknown", f"{processor} x {os.cpu_count()}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table, and record it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", type=Path, default=ROOT / ".test-times.xml", help="JUnit report of pytest")
    parser.add_argument("--history", type=Path, default=ROOT / "tests" / "times.csv", help="recorded runs")
    parser.add_argument("--record", action="store_true", help="append this run to the history")
    options = parser.parse_args(arguments)
    now = read_totals(options.report)
    print(describe(now, *read_last(options.history)))
    if options.record:
        record(options.history, now, find_facts())
    return 0


if __name__ == "__main__":
    sys.exit(main())
