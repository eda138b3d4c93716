"""Seconds and memory of the commands that read a study of many trials, and of planning one.

The trials are made up: what is measured is how long the commands take to read them. Run it alone on the machine:

    python benchmarks/study_scale.py --trials 100000 --folder scale

The study and the finished rows (`rows.jsonl`) stay in the folder, so that a run that was interrupted continues.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
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
from securitynet.results.store import TrialStore, write_trial_text
from securitynet.results.study_targets import Capabilities, StudyTargetRecord, StudyTargetStore

METHODS = ("loss", "entropy", "modified-entropy", "confidence", "correctness", "lira", "rmia", "mlp-posteriors")
MEASURES = ("auc", "accuracy", "advantage", "tpr@fpr=0.1", "tpr@fpr=0.01", "tpr@fpr=0.001", "blind-auc", "matched-auc")
COMMANDS = {
    "reindex": ("study", "reindex", "{out}"),
    "export": ("study", "export", "{out}", "{folder}/table.parquet"),
    "report": ("report", "{out}"),
    "figures list": ("figures", "list", "--from", "{out}"),
    "figures draw": ("figures", "draw", "all", "--from", "{out}", "--out", "{folder}/figures"),
    "publish": ("study", "publish", "{out}"),
    "plan": ("study", "plan", "{folder}/plan.toml"),
}
PLAN = """
name = "scale"
seeds = [{seeds}]

[data]
dataset = "digits"

[[train]]
architecture = "simple-cnn"
seeds = [{models}]

[[attacks]]
name = ["correctness", "confidence", "entropy", "modified-entropy", "loss"]
threat_models = ["black-box/partial"]
"""


def write_study(out: Path, trials: int) -> None:
    """Write the files of a study: 80 trials a target, eight measurements a trial; those that exist are skipped."""
    store, targets = TrialStore(out), StudyTargetStore(out)
    generator = np.random.default_rng(0)
    dataset, split = DatasetIdentity(reference="digits", fingerprint="d"), SplitIdentity(name="public", fingerprint="s")
    black_box = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
    intervals = [rate("hits", hits, 1000, direction=Direction.LOWER, level=0.95) for hits in range(1001)]
    for number in range(-(-trials // 80)):
        target = TargetIdentity(reference="arch:simple-cnn", checksum=f"{number:064x}", preprocessing={}, head="logits")
        means = Capabilities(target=target, dataset=dataset, split=split, access=Access.BLACK_BOX, shadow_data=False)
        key = f"{number:016x}"
        for count in range(min(80, trials - 80 * number)):
            method = f"membership.{METHODS[count % len(METHODS)]}"
            hits = generator.integers(0, 1001, len(MEASURES))
            spec = TrialSpec(target=target, dataset=dataset, split=split, kind="attack", method=method,
                             threat_model=black_box, seed=count // len(METHODS))  # fmt: skip
            path = store.path(spec.id)
            if path.exists():
                continue
            result = TrialResult(
                spec=spec,
                status="ok",
                measurements=tuple(
                    intervals[hit].model_copy(update={"name": f"{method}.{measure}"})
                    for measure, hit in zip(MEASURES, hits, strict=True)
                ),
                queries=Queries(total=1000, unique=1000),
                seconds={"attack": 0.5},
                environment={"securitynet": "0.2.0", "torch": "2.13.0"},
                finished="2026-01-01T00:00:00+00:00",
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(write_trial_text(result), encoding="utf-8")  # without waiting for the disk, as a study must
        targets.save(StudyTargetRecord(key=key, label=f"model {number}", status="ok", means=means, finished="2026"))


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


def measure_server(folder: Path) -> tuple[float, float, float]:
    """The same of `serve` with the study, from its start until the study's report has been read."""
    command = [sys.executable, "-m", "securitynet.cli.main", "serve", "--studies", str(folder), "--port", "0"]
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert server.stdout is not None
    try:
        address = next(match[0] for line in server.stdout if (match := re.search(r"http://\S+", line))).rstrip("/.")
        for page in ("/", "/studies", "/studies/1/report.html"):
            with urllib.request.urlopen(address + page, timeout=600) as response:
                response.read()
        wall = time.perf_counter() - started
        status = Path(f"/proc/{server.pid}/status").read_text()
        ticks = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    finally:
        server.terminate()
        server.wait()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return wall, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(peak[1]) / 2**20


def main() -> None:
    """Write a study, and print what each command takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--planned", type=int, default=300_000, help="trials of the study that is planned")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=[*COMMANDS, "serve"], default=[*COMMANDS, "serve"])
    options = parser.parse_args()
    folder = options.folder.absolute()
    out, log = folder / "studies" / "study", folder / "rows.jsonl"
    os.environ |= {"SECURITYNET_CACHE": f"{folder}/cache", "SECURITYNET_DATA": f"{folder}/data"}
    if not (folder / "written").exists():
        write_study(out, options.trials)
        seeds, models = ", ".join(map(str, range(20))), ", ".join(map(str, range(options.planned // 100)))
        (folder / "plan.toml").write_text(PLAN.format(seeds=seeds, models=models))
        (folder / "written").write_text(str(options.trials))
    if (folder / "written").read_text() != str(options.trials):
        raise SystemExit(f"The study in {folder} has another number of trials: choose another --folder.")
    finished = {row["name"] for row in map(json.loads, log.read_text().splitlines())} if log.exists() else set()
    with log.open("a") as rows:
        for name in options.only:
            if name in finished:
                continue
            if name == "serve":
                wall, processor, memory = measure_server(out.parent)
            else:
                wall, processor, memory = measure(tuple(word.format(out=out, folder=folder) for word in COMMANDS[name]))
            print(f"{name:12s} {wall:7.1f} s, {processor:7.1f} s of processor, {memory:5.2f} GiB", flush=True)
            print(
                json.dumps({"name": name, "wall": wall, "processor": processor, "GiB": memory}), file=rows, flush=True
            )


if __name__ == "__main__":
    main()
