"""Writes what was measured: a JSON with every round, and a page to read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness.measure import Measured, Sized, ratios

HEAD = """# Side by side with the peers

Written by `make bench`; every round is in [results.json](results.json). Each row hands both sides the same weights,
images, seeds and steps, checks that they computed the same thing, and only then takes times, in turns, so that a
machine that drifts favours nobody. Times are wall clock, medians of the rounds with the lowest and the highest; a ratio
is the median of the rounds' ratios. Memory is the most that a side's process held while it ran, the libraries that it
imports included. Growth is the exponent of time over size, over all sizes shown.
"""


def write(folder: Path, rows: list[Measured], facts: dict[str, Any]) -> None:
    """Write ``results.json`` and ``RESULTS.md``, whole or not at all."""
    document = {"format": "securitynet-benchmarks", "version": 1, **facts, "rows": [row.as_json() for row in rows]}
    _replace(folder / "results.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    _replace(folder / "RESULTS.md", page(rows, facts))


def page(rows: list[Measured], facts: dict[str, Any]) -> str:
    """``RESULTS.md``."""
    parts = [HEAD, _facts(facts), _aims(rows), *(_row(row, facts["revision"]) for row in rows)]
    return "\n".join(parts)


def _facts(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    words = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
        *([machine["gpu"]] if "gpu" in machine else []),
        f"Python {machine['python']}, torch {machine['torch']}",
        f"{facts['date']}, commit {facts['revision'] or 'unknown'}",
        f"{facts['material']}",
        f"{facts['seconds'] / 60:.0f} minutes for all rows, without making the environments",
    ]
    return "".join(f"- {word}\n" for word in words)


def _aims(rows: list[Measured]) -> str:
    lines = ["## Aims\n", "| | at | aim | measured | met |", "|---|---:|---|---:|---|"]
    for row in rows:
        if row.failure:
            lines.append(f"| {row.title} | | | not measured: see below | |")
        for judged in row.aims:
            size = f"{row.sized[-1].size:,} {row.unit}" if row.sized else ""
            lines.append(f"| {row.title} | {size} | {judged.aim} | {_measured(judged)} | {_met(judged.met)} |")
    return "\n".join(lines) + "\n"


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


def _measured(judged: Any) -> str:
    middle, low, high = judged.ratio
    if " ms " in judged.aim:
        return f"{middle:.1f} ms ({low:.1f} to {high:.1f})"
    if " MiB " in judged.aim:
        return f"{middle:,.0f} MiB"
    if judged.aim.startswith("at most"):
        return f"{middle:.2f} × ({low:.2f} to {high:.2f})"
    return f"{1 / middle:.1f} times faster ({1 / high:.1f} to {1 / low:.1f})"


def _row(row: Measured, revision: str) -> str:
    lines = [f"## {row.title}\n"]
    if row.revision not in ("", revision):
        lines.append(f"Measured with commit {row.revision}.")
    for sized in row.sized:
        if sized.agreement:
            lines.append(f"At {sized.size:,} {row.unit}: {sized.agreement}.")
    if row.sized:
        lines += ["", f"| side ({row.threads} threads) | {row.unit} | seconds | time / ours | peak memory | growth |"]
        lines.append("|---|---:|---:|---:|---:|---:|")
    for sized in row.sized:
        for side in sized.timings:
            lines.append(_line(row, sized, side))
    if row.tried:
        lines += ["", " ".join(row.tried.split())]
    if row.failure:
        lines += ["", "**Not measured, or not wholly.**", "", "```", row.failure.strip()[-1500:], "```"]
    return "\n".join(lines) + "\n"


def _line(row: Measured, sized: Sized, side: str) -> str:
    timing = sized.timings[side]
    ours = next(iter(sized.timings))
    ratio = "1" if side == ours else _ratio(*ratios(sized, side, ours))
    last = sized is row.sized[-1]
    exponent = f"{row.growth[side]:.2f}" if last and side in row.growth else ""
    shown = f"{_seconds(timing.median)} ({_seconds(min(timing.seconds))} to {_seconds(max(timing.seconds))})"
    named = f"{side} ({row.versions[side]})"
    return f"| {named} | {sized.size:,} | {shown} | {ratio} | {timing.peak / 2**20:,.0f} MiB | {exponent} |"


def _ratio(middle: float, low: float, high: float) -> str:
    digits = 2 if middle < 3 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _seconds(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def compare(first: Path, second: Path) -> str:
    """Whether two runs agree: for each aim, both medians, and whether their ranges over the rounds meet."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
    found = [
        {(row["name"], judged["aim"]): judged for row in document["rows"] for judged in row["aims"]}
        for document in documents
    ]
    lines = ["| row | aim | first | second | ranges meet | same verdict |", "|---|---|---:|---:|---|---|"]
    for key in found[0].keys() & found[1].keys():
        (one, low, high), (other, lowest, highest) = found[0][key]["ratio"], found[1][key]["ratio"]
        meet = low <= highest and lowest <= high
        same = found[0][key]["met"] == found[1][key]["met"]
        lines.append(f"| {key[0]} | {key[1]} | {one:.3f} | {other:.3f} | {_met(meet)} | {_met(same)} |")
    return "\n".join([*lines[:2], *sorted(lines[2:])])
