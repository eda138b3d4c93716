"""Seconds and memory of `study reindex`, `study export`, `report` and `figures` on a study of many trials.

The trials are made up: what is measured is how long the commands take to read them. Run it alone on the machine:

    python benchmarks/study_scale.py --trials 100000
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from securitynet.metrics.rates import rate
from securitynet.records import (
    Access,
    Auxiliary,
    DatasetIdentity,
    Direction,
    Queries,
    SplitIdentity,
    TargetIdentity,
    ThreatModel,
    TrialResult,
    TrialSpec,
)
from securitynet.results.store import TrialStore, trial_text
from securitynet.results.study_targets import Capabilities, StudyTargetRecord, StudyTargetStore

METHODS = ("loss", "entropy", "modified-entropy", "confidence", "correctness", "lira", "rmia", "mlp-posteriors")
MEASURES = ("auc", "accuracy", "advantage", "tpr@fpr=0.1", "tpr@fpr=0.01", "tpr@fpr=0.001", "blind-auc", "matched-auc")
COMMANDS = {
    "reindex": ("study", "reindex", "{out}"),
    "export": ("study", "export", "{out}", "{out}/table.parquet"),
    "report": ("report", "{out}"),
    "figures": ("figures", "list", "--from", "{out}"),
}


def write_study(out: Path, trials: int) -> None:
    """Write the files of a study: 80 trials a target, eight measurements a trial."""
    store, targets = TrialStore(out), StudyTargetStore(out)
    generator = np.random.default_rng(0)
    dataset, split = DatasetIdentity(reference="digits", fingerprint="d"), SplitIdentity(name="public", fingerprint="s")
    black_box = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
    for number in range(-(-trials // 80)):
        target = TargetIdentity(reference="arch:simple-cnn", checksum=f"{number:064x}", preprocessing={}, head="logits")
        means = Capabilities(target=target, dataset=dataset, split=split, access=Access.BLACK_BOX, shadow_data=False)
        targets.save(
            StudyTargetRecord(key=f"{number:016x}", label=f"model {number}", status="ok", means=means, finished="2026")
        )
        for count in range(min(80, trials - 80 * number)):
            method = f"membership.{METHODS[count % len(METHODS)]}"
            hits = generator.integers(0, 1000, len(MEASURES))
            spec = TrialSpec(target=target, dataset=dataset, split=split, kind="attack", method=method,
                             threat_model=black_box, seed=count // len(METHODS))  # fmt: skip
            result = TrialResult(
                spec=spec,
                status="ok",
                measurements=tuple(
                    rate(f"{method}.{measure}", int(hit), 1000, direction=Direction.LOWER, level=0.95)
                    for measure, hit in zip(MEASURES, hits, strict=True)
                ),
                queries=Queries(total=1000, unique=1000),
                seconds={"attack": 0.5},
                environment={"securitynet": "0.2.0", "torch": "2.13.0"},
                finished="2026-01-01T00:00:00+00:00",
            )
            path = store.path(result.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(trial_text(result), encoding="utf-8")  # without waiting for the disk, as a study must


def measure(arguments: tuple[str, ...]) -> tuple[float, float, float]:
    """(wall-clock seconds, processor seconds, peak memory in GiB) of a command."""
    code = (
        "import resource, subprocess, sys\n"
        "command = [sys.executable, '-m', 'securitynet.cli.main', *sys.argv[1:]]\n"
        "done = subprocess.run(command, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_maxrss, used.ru_utime + used.ru_stime, done.returncode)\n"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    memory, processor, returned = done.stdout.split()
    if returned != "0":
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {returned}:\n{done.stderr}")
    return time.perf_counter() - started, float(processor), int(memory) / 2**20


def main() -> None:
    """Write a study, and print what each command takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", choices=list(COMMANDS), default=list(COMMANDS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SECURITYNET_CACHE": f"{folder}/cache", "SECURITYNET_DATA": f"{folder}/data"}
        out = Path(folder) / "study"
        write_study(out, options.trials)
        print(f"{options.trials:,} trials; this process took {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} s")
        for name in options.only:
            arguments = tuple(word.format(out=out) for word in COMMANDS[name])
            wall, processor, memory = measure(arguments)
            print(f"{name:10s} {wall:7.1f} s, {processor:7.1f} s of processor, {memory:5.2f} GiB")


if __name__ == "__main__":
    main()
