"""What running a study would do, and what it would cost. Nothing of the study's own results is written."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import securitynet.datasets
from securitynet.assessments.config import AssessConfig
from securitynet.datasets.options import load_options
from securitynet.defenses.base import defended_training
from securitynet.files import cache_folder
from securitynet.models.training.config import TrainConfig
from securitynet.results.index import Index
from securitynet.results.store import TrialStore
from securitynet.results.subjects import SubjectRecord
from securitynet.studies.definition.plan import StudyPlan, StudyTrial, plan_study
from securitynet.studies.definition.targets import SubjectPlan
from securitynet.studies.execution.executors.base import Bench, Died, Event, Finished
from securitynet.studies.execution.executors.local import LocalExecutor, memory_peak, places
from securitynet.studies.execution.progress import Counts, Ledger
from securitynet.studies.execution.run import Place, out_of, place_of
from securitynet.studies.execution.status import words_of
from securitynet.studies.execution.worker_tasks import weights_path

RECORDS = 200
"""Records of each part on which methods are tried for an estimate."""

TRY_SECONDS = 60.0
"""Longest trial of a calibration; what takes longer is told as a lower bound."""


@dataclass
class Ahead:
    """What a run would do.

    Attributes:
        plan: The study.
        place: Where its results are, or will be.
        cache: Folder for what can be recomputed.
        counts: Trials in all, ok, failed, skipped.
        run: Method -> trials that would be run.
        skipped: Method and reason -> trials that can't be run.
        unopened: Targets that have not been opened yet: of their trials it is expected which can be run.
        obstacles: Label of a target that can't be opened -> why.
        train: Targets that would be trained.
    """

    plan: StudyPlan
    place: Place
    cache: Path
    counts: Counts = field(default_factory=Counts)
    run: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unopened: int = 0
    obstacles: dict[str, str] = field(default_factory=dict)
    train: list[SubjectPlan] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "name": self.plan.study.name,
            "results": self.place.root.name,
            "targets": len(self.plan.subjects),
            "unopened": self.unopened,
            "train": [subject.label for subject in self.train],
            "counts": asdict(self.counts),
            "run": dict(sorted(self.run.items())),
            "skipped": dict(sorted(self.skipped.items())),
            "obstacles": self.obstacles,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        counts = self.counts
        yield f"{self.plan.study.name}: {counts.total:,} trials on {len(self.plan.subjects):,} targets"
        if self.plan.study.description:
            yield f"  {self.plan.study.description}"
        yield f"Results: {self.place.root.name}"
        yield f"There already: {counts.ok:,} ok, {counts.failed:,} failed"
        if counts.other_version:
            yield f"  {counts.other_version:,} of them made by another version; --refresh runs them again"
        yield f"To run: {sum(self.run.values()):,}"
        yield from (f"  {number:>6,} × {name}" for name, number in sorted(self.run.items()))
        if self.train:
            yield f"To train first: {len(self.train):,} targets"
        if self.unopened:
            yield f"Targets not opened yet: {self.unopened:,} (which of their trials can run is expected, not known)"
        if self.skipped:
            yield f"Will be skipped: {sum(self.skipped.values()):,}"
            yield from (f"  {number:>6,} × {reason}" for reason, number in sorted(self.skipped.items()))
        if self.obstacles:
            yield f"Targets that can't be opened: {len(self.obstacles):,}"
            yield from (f"  {label}: {why}" for label, why in self.obstacles.items())


@dataclass
class Estimate:
    """What a run would cost, from a short calibration on this machine.

    Attributes:
        seconds: Wall-clock seconds with so many workers.
        workers: How many.
        memory: Bytes of the largest worker, on the calibration's few records.
        disk: Bytes of results.
        queries: Images that would be sent to targets, caches left out.
        methods: Method -> seconds of a trial.
        bounds: Methods that took too long to be tried whole: their seconds are the least.
        failed: Method -> why it could not be tried.
        on: Label of the target that was tried.
    """

    seconds: float
    workers: int
    memory: int
    disk: int
    queries: int
    methods: dict[str, float]
    bounds: list[str]
    failed: dict[str, str]
    on: str

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        least = "at least " if self.bounds else "about "
        yield f"Estimated from {RECORDS} records a part on {self.on}:"
        yield f"  time: {least}{words_of(self.seconds)} with {self.workers} workers"
        yield f"  memory: {self.memory / 2**30:.1f} GiB a worker, and what larger data take"
        yield f"  disk: {self.disk / 2**20:,.0f} MiB of results"
        yield f"  queries: {self.queries:,} images"
        for name in self.bounds:
            yield f"  {name} took over {TRY_SECONDS:.0f} s even so, and may take much longer"
        for name, why in self.failed.items():
            yield f"  {name} could not be tried: {why}"


def look_ahead(
    file: Path, *, out: str | None = None, cache: Path | None = None, retry_failed: bool = False, refresh: bool = False
) -> Ahead:
    """What running a study would do; see `Ahead`.

    Raises:
        SecurityNetError: If something in the study file makes no sense.
    """
    cache = (cache or cache_folder()).absolute()
    plan = plan_study(file, cache)
    place = place_of(out_of(plan.study, plan.base, out))
    index = Index("sqlite://", place.root)
    try:
        index.refresh()
        ledger = Ledger(plan, index, retry_failed=retry_failed, refresh=refresh)
    finally:
        index.close()
    found = Ahead(plan, place, cache)
    for subject in plan.subjects:
        record = ledger.records.get(subject.key)
        opened = record is not None and record.status == "ok"
        found.unopened += not opened
        trials = plan.trials(subject, plan.means(subject, record))
        if opened:
            assert record is not None
            found.run.update(trial.plan.name for trial in ledger.sort(subject, record).run)
        elif subject.obstacle is not None:
            found.obstacles[subject.label] = subject.obstacle
        elif record is None or retry_failed:
            found.run.update(trial.plan.name for trial in trials if trial.obstacle is None)
        for trial in trials:
            if trial.obstacle is not None:
                found.skipped[f"{trial.plan.name}: {trial.obstacle}"] += 1
        if subject.train is not None and not opened and not _trained(subject.train, cache):
            found.train.append(subject)
    found.counts = ledger.counts()
    return found


def estimate(
    ahead: Ahead,
    *,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    note: Callable[[str], None] = print,
) -> Estimate:
    """Try each method once on a few records of one target, and multiply.

    Time and queries are taken to grow with the number of records. Training is tried for one epoch.

    Args:
        ahead: What would be run.
        workers: For how many; as many as `study run` would start by default.
        progress: Told about each trial.
        note: Told what could not be tried.
    """
    folder = Path(tempfile.mkdtemp(prefix="securitynet-calibration-"))
    try:
        return _Calibration(ahead, folder, workers, progress, note).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Calibration:
    def __init__(
        self,
        ahead: Ahead,
        folder: Path,
        workers: int | None,
        progress: Callable[[str, int, int], None] | None,
        note: Callable[[str], None],
    ) -> None:
        self.ahead, self.folder, self.progress, self.note = ahead, folder, progress, note
        settings = ahead.plan.study.run
        measures = ahead.plan.study.measures
        one = settings.model_copy(update={"workers": 1, "pin": False})
        self.executor = LocalExecutor(
            Bench(str(folder / "results"), folder / "cache", folder, measures.level, measures.fprs, one)
        )
        self.workers = workers or len(places(settings))
        self.memory = 0

    def run(self) -> Estimate:
        plan = self.ahead.plan
        candidates = [subject for subject in plan.subjects if subject.obstacle is None]
        found = Estimate(0.0, self.workers, 0, 0, 0, {}, [], {}, candidates[0].label if candidates else "nothing")
        try:
            for subject in candidates:
                if self._try(subject, found):
                    break
        finally:
            self.executor.close()
        found.memory = self.memory
        return found

    def _try(self, subject: SubjectPlan, found: Estimate) -> bool:
        """Try everything on one target; False if it can't be opened."""
        small = _smaller(subject)
        job = self._job(small)
        if small.train is not None:
            begun = self._do({"do": "train", "train": small.train})
            if begun["status"] != "ok":
                self.note(f"{subject.label} can't be trained for the calibration: {begun['reason']}")
                return False
        opened = self._do({**job, "do": "open", "tolerance": 1.0, "on_mismatch": "note"})
        if opened["status"] != "ok":
            self.note(f"{subject.label} can't be opened for the calibration: {opened['reason']}")
            return False
        record = SubjectRecord.model_validate(opened["record"])
        found.on = subject.label
        tried = record.facts["members"] + record.facts["non_members"]
        scale = self._scale(subject, tried)
        trials: dict[tuple[str, str], StudyTrial] = {}
        for trial in self.ahead.plan.trials(small, self.ahead.plan.means(small, record)):
            if trial.obstacle is None and trial.plan.name in self.ahead.run:
                trials.setdefault((trial.plan.name, str(trial.spec.threat_model)), trial)
        seconds: dict[str, list[float]] = {}
        for number, ((name, _), trial) in enumerate(trials.items()):
            if self.progress:
                self.progress("calibrating", number, len(trials))
            outcome = self._do({**job, "do": "trial", "trial": trial.job()}, TRY_SECONDS)
            if outcome["status"] == "late":
                if name not in found.bounds:
                    found.bounds.append(name)
            elif outcome["status"] != "ok" or outcome["trial"] != "ok":
                found.failed[name] = outcome["reason"]
                continue
            seconds.setdefault(name, []).append(outcome["seconds"] * scale)
        store = TrialStore(self.folder / "results")
        kept = list(store)
        queries = {r.spec.method: r.queries.total * scale for r in kept if r.status == "ok"}
        size = sum(path.stat().st_size for path in (self.folder / "results").rglob("*.*") if path.is_file())
        found.methods = {name: sum(values) / len(values) for name, values in seconds.items()}
        usual = sum(found.methods.values()) / len(found.methods) if found.methods else 0.0
        total = sum(number * found.methods.get(name, usual) for name, number in self.ahead.run.items())
        total += self.ahead.unopened * opened["seconds"] * scale
        if small.train is not None:
            one = begun["seconds"] * scale
            total += sum(one * self._epochs(s) for s in self.ahead.train)
        found.seconds = total / self.workers
        found.disk = round(size / max(len(kept), 1) * scale * sum(self.ahead.run.values()))
        found.queries = round(sum(number * queries.get(name, 0.0) for name, number in self.ahead.run.items()))
        return True

    def _scale(self, subject: SubjectPlan, tried: int) -> float:
        """How many times as many records the study has."""
        config = AssessConfig.model_validate(subject.options)
        assert config.dataset is not None  # subjects without one are not tried
        dataset = securitynet.datasets.load(config.dataset, **load_options(config), cache=self.ahead.cache)
        four = self.ahead.plan.means(subject, None).split.name == "four-way"
        return max(1.0, len(dataset) / (2 if four else 1) / max(tried, 1))

    @staticmethod
    def _epochs(subject: SubjectPlan) -> int:
        return TrainConfig.model_validate(subject.train).epochs

    def _job(self, subject: SubjectPlan) -> dict[str, Any]:
        names = ("key", "label", "options", "train", "catalog", "codes")
        declared = {name: getattr(subject, name) for name in names}
        return {"subject": {**declared, "declared": {}, "accuracy": None, "checksum": None}}

    def _do(self, job: dict[str, Any], limit: float | None = None) -> dict[str, Any]:
        begun = time.monotonic()
        self.executor.submit(0, job)
        while True:
            events: list[Event] = self.executor.wait(0.1)
            self.memory = max([self.memory, *(memory_peak(pid) for pid in self.executor.processes())])
            for event in events:
                if isinstance(event, Finished):
                    return event.outcome
                if isinstance(event, Died):
                    return {"status": "failed", "reason": event.why}
            if limit is not None and time.monotonic() - begun > limit:
                self.executor.kill(0)
                return {"status": "late", "seconds": limit}


def _trained(train: dict[str, Any], cache: Path) -> bool:
    """Whether the weights of a recipe are in the cache."""
    return weights_path(defended_training(TrainConfig.model_validate(train))[0], cache).exists()


def _smaller(subject: SubjectPlan) -> SubjectPlan:
    """A target on few records, trained for one epoch."""
    limit = min(RECORDS, subject.options.get("limit") or RECORDS)
    train = None if subject.train is None else {**subject.train, "epochs": 1, "limit": limit, "patience": 0}
    options = {**subject.options, "limit": limit}
    return replace(subject, options=options, train=train, key=f"calibration-{subject.key}")
