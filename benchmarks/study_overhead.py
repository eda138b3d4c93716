"""What studies cost beside their targets' arithmetic.

    python benchmarks/study_overhead.py plan        10,000 trials that do nothing: planning, and finding nothing to do
    python benchmarks/study_overhead.py dispatch    seconds a trial from runner to worker and back, and where they go
    python benchmarks/study_overhead.py models      100 small models: share of their arithmetic in the time; workers
    python benchmarks/study_overhead.py population  100 small trained networks × 8 attacks: where the time goes
    python benchmarks/study_overhead.py ray         Ray against local workers

`population --source FOLDER` runs the package in that folder as well, in turn with this one, for a comparison.

The trials that do nothing are the plug-in of the tests.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "helpers" / "plugin"

FACTORY = """
import torch

def make():
    torch.manual_seed({seed})
    return torch.nn.Sequential({layers})
"""
NOTHING = "torch.nn.Flatten(), torch.nn.Linear(64, 10)"


def command(folder: Path, *arguments: object) -> list[str]:
    trusted = ",".join(f"python:{path.name}:make" for path in folder.glob("m*.py"))
    return [sys.executable, "-m", "securitynet.cli.main", "study", *map(str, arguments), "--trust", trusted]


def call(folder: Path, *arguments: object, cpu: bool = False, source: Path | None = None) -> float:
    """Seconds of a whole command; with ``cpu`` of processor time, which a busy machine does not stretch as much."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")]),
        "SECURITYNET_CACHE": str(folder / "cache"),
        "SECURITYNET_DATA": str(folder / "data"),
    }
    environment.pop("NOOP_FOLDER", None)
    if source is not None:
        environment["PYTHONPATH"] = f"{source}{os.pathsep}{PLUGIN}"
    started, before = time.perf_counter(), spent()
    done = subprocess.run(command(folder, *arguments), env=environment, capture_output=True, text=True)
    seconds = spent() - before if cpu else time.perf_counter() - started
    if done.returncode not in (0, 4):
        raise SystemExit(done.stderr)
    return seconds


def spent() -> float:
    """Processor seconds of all commands so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_models(folder: Path, count: int, layers: str) -> None:
    for number in range(count):
        (folder / f"m{number}.py").write_text(FACTORY.format(seed=number, layers=layers))


def noop_study(folder: Path, models: int, numbers: int) -> Path:
    write_models(folder, models, NOTHING)
    references = ", ".join(f'"python:m{number}.py:make"' for number in range(models))
    path = folder / "study.toml"
    path.write_text(f"""
name = "noop"
[data]
dataset = "digits"
limit = 60
normalize = "none"
head = "logits"
[[models]]
reference = [{references}]
[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
[attacks.grid]
number = {list(range(numbers))}
""")
    return path


def plan(folder: Path) -> None:
    study, out = noop_study(folder, 20, 500), folder / "out"

    def show(what: str, *arguments: object) -> None:
        before = spent()
        wall = call(folder, *arguments)
        print(f"{what:66s} {wall:6.2f} s, {spent() - before:6.2f} s of processor")

    show("10,000 trials planned, whole command", "plan", study, "--out", out)
    fill(folder, study, out)
    show("10,000 files indexed for the first time, and nothing left to do", "run", study, "--out", out)
    for _ in range(3):
        show("resumed with nothing left to do, whole command", "run", study, "--out", out)
    wall, before = time.perf_counter(), spent()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    print(
        f"{'(of which `import torch`)':66s} {time.perf_counter() - wall:6.2f} s, {spent() - before:6.2f} s of processor"
    )


def fill(folder: Path, study: Path, out: Path) -> None:
    """Open the targets, and write 10,000 trial files as workers would have."""
    code = """
import sys
from pathlib import Path
from securitynet.records import TrialResult
from securitynet.results.root import FolderRoot
from securitynet.results.store import TrialStore, write_trial_text
from securitynet.assessments.environment import read_version
from securitynet.studies.definition.plan import plan_study
from securitynet.assessments.run_trial import MetricOptions, now
from securitynet.studies.execution.task_records import WorkerConfig, WorkerPlacement, WorkerTask
from securitynet.studies.execution.worker_tasks import TaskRunner
from securitynet_noop import Nothing

study, out, cache = map(Path, sys.argv[1:])
plan = plan_study(study, cache, trust=[f"python:m{number}.py:make" for number in range(1000)])
measures = plan.study.measures
root = FolderRoot(out)
runner = TaskRunner(
    WorkerConfig(root=str(out), cache=cache, level=measures.level, fprs=measures.fprs,
                 placement=WorkerPlacement(device="cpu"))
)
store = TrialStore(root)
measured = MetricOptions(measures.level, measures.fprs, 0).measure_output("membership.noop@none", Nothing(1))
for target in plan.targets:
    record = runner.run(WorkerTask(kind="open", target=target)).record
    for trial in plan.trials(target, record.means):
        path = store.path(trial.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        result = TrialResult(spec=trial.spec, status="ok", measurements=tuple(measured),
                             environment={"securitynet": read_version()}, finished=now())
        path.write_text(write_trial_text(result))
"""
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN), "SECURITYNET_CACHE": str(folder / "cache")}
    arguments = [sys.executable, "-c", code, str(study), str(out), str(folder / "cache")]
    subprocess.run(arguments, env=environment, check=True)


def dispatch(folder: Path) -> None:
    """The difference of two studies on one target: workers start in both."""
    few, many = 20, 420
    seconds = {}
    for number in (few, many):
        place = folder / str(number)
        place.mkdir()
        study = noop_study(place, 1, number)
        seconds[number] = min(call(place, "run", study, "--out", place / f"out{n}", "--workers", 1) for n in range(2))
    each = (seconds[many] - seconds[few]) / (many - few)
    print(f"{'a trial that does nothing, files flushed to disk':60s} {1000 * each:6.2f} ms")
    target = folder / "flush"
    target.mkdir()
    started = time.perf_counter()
    for number in range(100):
        for suffix in ("npz", "json"):
            with (target / f"{number}.{suffix}").open("wb") as stream:
                stream.write(b"x" * 1000)
                stream.flush()
                os.fsync(stream.fileno())
    print(f"{'(of which two bare writes with fsync)':60s} {10 * (time.perf_counter() - started):6.2f} ms")


def bare(folder: Path, data: str, limit: int) -> float:
    """Seconds of the forward passes of one model alone: frozen and folded as in a study, batches ready in memory."""
    code = """
import sys, time
import numpy as np
import torch
torch.set_num_threads(1)
from securitynet.models.targets.query_count import compute_image_keys
from pathlib import Path
from securitynet.datasets import load
from securitynet.models.loading.load import load_target
folder, data, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
dataset = load(data, limit=limit, cache=folder / "cache")
target = load_target(f"python:{folder}/m0.py:make", dataset=dataset, normalize="none", head="logits")
batches = [images for _, images in dataset.batches(np.arange(len(dataset)), target.batch_size)]
keys = [compute_image_keys(images) for images in batches]
def run():
    started = time.perf_counter()
    for images, known in zip(batches, keys):
        target.raw_outputs(images, keys=known)
    return time.perf_counter() - started
print(min(run() for _ in range(3)))
"""
    arguments = [sys.executable, "-c", code, str(folder), data, str(limit)]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def models(folder: Path, count: int, limit: int, data: str, rounds: int) -> None:
    write_models(folder, count, "")
    for number in range(count):
        (folder / f"m{number}.py").write_text(
            "import torch\nfrom securitynet.models.architectures.factory import build\n\n"
            f"def make():\n    torch.manual_seed({number})\n"
            "    return build('cifar-resnet20', 10, 3, 32)\n"
        )
    references = ", ".join(f'"python:m{number}.py:make"' for number in range(count))
    study = folder / "study.toml"
    study.write_text(f"""
name = "models"
[data]
dataset = "{data}"
limit = {limit}
normalize = "none"
head = "logits"
[[models]]
reference = [{references}]
[[attacks]]
name = ["correctness", "modified-entropy"]
""")
    forward = [bare(folder, data, limit)]  # decodes the dataset as well, once
    times: dict[int, list[float]] = {1: [], 2: []}
    for round_ in range(rounds):
        for workers in (1, 2):
            arguments = ("run", study, "--out", folder / f"out{round_}{workers}", "--workers", workers, "--threads", 1)
            times[workers].append(call(folder, *arguments))
            shutil.rmtree(folder / "cache" / "signals")
        forward.append(bare(folder, data, limit))
    shares(folder / "out01")  # round 0, one worker
    arithmetic = count * sorted(forward)[len(forward) // 2]
    one, two = min(times[1]), min(times[2])
    print(
        f"{f'forward passes of {count} ResNet-20 on {2 * limit:,} images, alone, one thread':66s} {arithmetic:6.1f} s"
    )
    print(f"{'the study with one worker, whole command':66s} {one:6.1f} s, {arithmetic / one:.0%} of it arithmetic")
    print(f"{'the study with two workers':66s} {two:6.1f} s, {one / two:.2f} times as fast")


def shares(out: Path) -> None:
    """Where the time of a study with one worker went, by what its files and its status say."""
    parts = {"loading targets": 0.0, "querying targets": 0.0}
    for path in (out / "subjects").glob("*.json"):
        seconds = json.loads(path.read_text())["seconds"]
        parts["loading targets"] += seconds["load"]
        parts["querying targets"] += seconds["signals"]
    for path in (out / "trials").rglob("*.json"):
        trial = json.loads(path.read_text())
        part = f"trials: {trial['spec']['method']}"
        parts[part] = parts.get(part, 0.0) + sum(trial["seconds"].values())
    elapsed = json.loads((out / "run" / "status.json").read_text())["elapsed"]
    parts["starting the worker, saving, waiting"] = elapsed - sum(parts.values())
    for name, seconds in parts.items():
        print(f"  {name:64s} {seconds:6.1f} s, {seconds / elapsed:.0%}")


POPULATION = """
name = "population"
[data]
dataset = "digits"
[[train]]
architecture = "{architecture}"
epochs = 2
seeds = {seeds}
"""

ATTACKS = """
[[attacks]]
name = ["modified-entropy", "mlp-top3", "fgsm", "ml-doctor-surrogate", "embedding-mlp", "fredrikson"]
threat_models = ["black-box/partial", "white-box/partial", "white-box/none"]
[[attacks]]
name = "pgd"
settings = {{ steps = 10 }}
[[detectors]]
name = "neural-cleanse"
settings = {{ epochs = {epochs} }}
"""
"""One or more of each family, that users run over a population."""

FAST = """
[[attacks]]
name = ["correctness", "loss", "entropy", "modified-entropy", "gradient-norm", "mlp-top3", "mlp-posteriors", "fgsm"]
threat_models = ["black-box/partial", "black-box/none", "white-box/partial", "white-box/none"]
"""
"""Eight that need one pass, or little more."""


def population(folder: Path, options: argparse.Namespace) -> None:
    """Trained networks are kept and the rest of the cache is emptied before each run: only training is left out."""
    targets = POPULATION.format(architecture=options.architecture, seeds=list(range(options.count)))
    attacks = FAST if options.fast else ATTACKS.format(epochs=options.cleanse_epochs)
    study = folder / "study.toml"
    study.write_text(targets + '[[attacks]]\nname = "correctness"\n')
    call(folder, "run", study, "--out", folder / "trained", "--workers", 1, "--threads", 1)
    study.write_text(targets + attacks)
    sources = [None, *options.source]
    seconds: dict[str | None, list[tuple[float, float]]] = {source: [] for source in sources}
    for round_ in range(options.rounds):
        for number, source in enumerate(sources):
            for part in (folder / "cache").iterdir():
                if part.name != "models":
                    shutil.rmtree(part)
            out = folder / f"out{round_}-{number}"
            before = spent()
            wall = call(folder, "run", study, "--out", out, "--workers", 1, "--threads", 1, source=source)
            seconds[source].append((spent() - before, wall))
            print(
                f"{source or 'this source'}: {spent() - before:.1f} s of processor, {wall:.1f} s, "
                f"load {os.getloadavg()[0]:.1f}"
            )
            shares(out)
    for source, times in seconds.items():
        processor, wall = (min(column) for column in zip(*times, strict=True))
        name = f"{options.count} networks, {source or 'this source'}"
        print(f"{name:66s} {processor:6.1f} s of processor, {wall:6.1f} s")


def compare_ray(folder: Path) -> None:
    study = noop_study(folder, 4, 50)
    local = min(call(folder, "run", study, "--out", folder / f"local{n}", "--workers", 2) for n in range(2))
    clustered = min(
        call(folder, "run", study, "--out", folder / f"ray{n}", "--workers", 2, "--executor", "ray") for n in range(2)
    )
    print(f"{'200 trials that do nothing, local workers':60s} {local:6.2f} s")
    print(f"{'the same on a Ray started for it':60s} {clustered:6.2f} s, {clustered / local:.2f} times as long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan", "dispatch", "models", "population", "ray"])
    parser.add_argument("--count", type=int, default=100, help="models, population: how many")
    parser.add_argument("--architecture", default="simple-cnn", help="population: of the networks")
    parser.add_argument("--fast", action="store_true", help="population: eight attacks of one pass, or little more")
    parser.add_argument("--cleanse-epochs", type=int, default=50, help="population: epochs of Neural Cleanse")
    parser.add_argument("--source", type=Path, action="append", default=[], help="population: another src folder")
    parser.add_argument("--limit", type=int, default=2000, help="models: records of each part")
    parser.add_argument("--data", default="digits", help="models: dataset of 32x32 colour images")
    parser.add_argument("--rounds", type=int, default=2, help="models, population: how often each is timed")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "securitynet"))
    print(f"{versions}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="study-overhead-") as name:
        folder = Path(name)
        if options.what == "plan":
            plan(folder)
        elif options.what == "dispatch":
            dispatch(folder)
        elif options.what == "population":
            population(folder, options)
        elif options.what == "models":
            models(folder, options.count, options.limit, options.data, options.rounds)
        else:
            compare_ray(folder)


if __name__ == "__main__":
    main()
