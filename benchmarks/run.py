"""Measures this project beside the tools that people use today, and writes RESULTS.md and results.json.

    make bench
    python benchmarks/run.py --rows fgsm pgd --rounds 3
    python benchmarks/run.py --device cuda
    python benchmarks/run.py --compare first.json second.json

Environments of the peers and files of the rows lie in benchmarks/.environments and benchmarks/.work; both can be
deleted. A run that was stopped goes on with `--resume`.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import json
import os
import sys
import time
from pathlib import Path

from harness import results
from harness.environments import BENCHMARKS, environment
from harness.machine import machine, revision
from harness.measure import Judged, Measured, Sized, Timing, measure
from harness.row import Row


def names() -> list[str]:
    """The rows that there are, in the table's order."""
    listed = (BENCHMARKS / "rows" / "ORDER").read_text(encoding="utf-8").split()
    found = {path.stem for path in (BENCHMARKS / "rows").glob("[!_]*.py")}
    if set(listed) != found:
        raise SystemExit(f"rows/ORDER and the files in rows/ differ: {sorted(set(listed) ^ found)}")
    return listed


def load(name: str) -> Row:
    """A row by the name of its file."""
    return importlib.import_module(f"rows.{name}").ROW


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these; --list shows all")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--device", default="cpu", help="cpu or cuda: rows that cannot run there are left out")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side (default: all cores)")
    parser.add_argument("--rounds", type=int, help="of each side, in place of each row's own number")
    parser.add_argument("--sizes", type=int, nargs="+", help="in place of each row's own")
    parser.add_argument("--data", type=Path, default=BENCHMARKS.parent.parent / "shared" / "data", help="with CIFAR-10")
    parser.add_argument("--out", type=Path, default=BENCHMARKS, help="folder for RESULTS.md and results.json")
    parser.add_argument("--work", type=Path, default=BENCHMARKS, help="folder for .environments and .work")
    parser.add_argument("--resume", action="store_true", help="keep the rows that an interrupted run has finished")
    parser.add_argument("--update", action="store_true", help="keep other rows of --out than --rows as they are")
    parser.add_argument("--environments", action="store_true", help="only make the environments")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="JSON", help="say whether two runs agree, and stop")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the rows; 0 if each was measured, 1 if not."""
    options = parse()
    if options.compare:
        print(results.compare(*options.compare))
        return 0
    chosen = options.rows or names()
    unknown = set(chosen) - set(names())
    if unknown:
        raise SystemExit(f"There is no row {', '.join(sorted(unknown))}. There are: {', '.join(names())}.")
    rows = {name: row for name in chosen if options.device.partition(":")[0] in (row := load(name)).devices}
    if options.list:
        for name, row in rows.items():
            print(f"{name:20} {row.title}: {', '.join(side.name for side in row.sides)}")
        return 0
    started = time.perf_counter()
    find = functools.cache(functools.partial(environment, folder=options.work.resolve() / ".environments"))
    for name in {side.environment for row in rows.values() for side in row.sides}:
        find(name)
    if options.environments:
        return 0
    work, out = options.work.resolve() / ".work", options.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    data = options.data.resolve() if (options.data / "cifar10-jpeg").is_dir() else None
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "revision": revision(BENCHMARKS),
        "device": options.device,
        "threads": options.threads,
        "machine": machine(options.device),
        "material": "images and ResNet-20 of CIFAR-10" if data else "digits at 32×32 and a ResNet-20 trained on them",
        "seconds": 0.0,
    }
    same = ("device", "threads", "machine", "material")
    kept = {}
    if options.resume or options.update:
        kept = _kept(out / "results.json", facts, same if options.update else (*same, "revision"))
    if options.update:
        kept = {name: row for name, row in kept.items() if name not in rows}
        rows = {name: load(name) for name in names() if name in kept or name in rows}
    measured = dict(kept)
    for number, (name, row) in enumerate(rows.items(), 1):
        print(f"[{number}/{len(rows)}] {row.title}", file=sys.stderr, flush=True)
        found = kept.get(name) or measure(
            name,
            row,
            folder=work,
            find=find,
            device=options.device,
            threads=options.threads,
            data=data,
            rounds=options.rounds,
            sizes=tuple(options.sizes) if options.sizes else None,
            tell=functools.partial(print, file=sys.stderr, flush=True),
        )
        found.revision = found.revision or str(facts["revision"])
        if found.failure:
            print(f"  NOT MEASURED: {found.failure}", file=sys.stderr, flush=True)
        measured[name] = found
        facts["seconds"] = sum(row.seconds for row in measured.values())
        results.write(
            out, [measured[name] for name in rows if name in measured], facts
        )  # kept ones, too, if this is killed
    print(f"{out / 'RESULTS.md'} after {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)
    return 1 if any(measured[name].failure for name in rows) else 0


def _kept(path: Path, facts: dict, same: tuple[str, ...]) -> dict[str, Measured]:
    """Rows that an earlier run has finished, if those facts are the same."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    if any(document[name] != facts[name] for name in same):
        return {}
    found = {}
    for row in document["rows"]:
        row["sized"] = [
            Sized(**{**one, "timings": {side: Timing(**timing) for side, timing in one["timings"].items()}})
            for one in row["sized"]
        ]
        row["aims"] = [Judged(**{**judged, "ratio": tuple(judged["ratio"])}) for judged in row["aims"]]
        if not row["failure"]:
            found[row["name"]] = Measured(**row)
    return found


if __name__ == "__main__":
    sys.exit(main())
