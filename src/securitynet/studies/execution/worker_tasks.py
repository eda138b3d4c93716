"""What a worker does: train a target, open a subject, do shared work, run a trial. Executors differ only in where.

A job and its outcome are JSON, so that they can go through any pipe. What is opened for one job stays open for the
next: a target is loaded once for all its trials that this worker runs.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import securitynet.datasets
from securitynet.assessments import environment
from securitynet.assessments.assess import accuracies
from securitynet.assessments.assessed_target import Subject, prepare, trial_data
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.method_settings import make_method
from securitynet.assessments.run_trial import Measures, is_full_disk, now, reuse, run_trial
from securitynet.assessments.trial_plan import PlannedTrial, means_of, specification
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.locks import exclusive
from securitynet.datasets.options import load_options
from securitynet.errors import ConfigurationError, ModelError, SecurityNetError
from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.model_record import model_record_path
from securitynet.models.targets.signals import collect
from securitynet.models.training.config import TrainConfig
from securitynet.records import Measurement, TrialResult
from securitynet.results.root import Root
from securitynet.results.store import TrialStore
from securitynet.results.subjects import Check, SubjectRecord, SubjectStore
from securitynet.studies.definition.file import parse_threat_model

Job = dict[str, Any]
Outcome = dict[str, Any]
Progress = Callable[[str, int, int], None]

TERM = "term"
"""File that holds the mark of the last run that has begun."""

BEGAN = "began"
"""What progress is told when the target is open and the trial itself begins: its time limit counts from there."""

_DATASETS = 2
"""Datasets that stay loaded: consecutive targets often share theirs."""


@dataclass(eq=False)
class _Open:
    key: str
    config: AssessConfig
    subject: Subject
    data: TrialData
    work: dict[str, SharedWork]


class TermOver(Exception):
    """Another run of the study has begun; this worker's trial is its business now."""


class FencedStore(TrialStore):
    """Trial files, as long as the run that this belongs to is the last one.

    A worker may outlive its runner for a moment, or for long on a machine that was cut off. What it finishes then is
    run again by the next runner's workers, and must not be finished twice.
    """

    def __init__(self, root: Root, term: str) -> None:
        super().__init__(root)
        self._term = term

    def save(self, result: TrialResult, arrays: Mapping[str, NDArray[Any]] | None = None) -> TrialResult:
        """See `TrialStore.save`. Raises `TermOver` if another run has begun."""
        check_term(self.files, self._term)
        return super().save(result, arrays)


def check_term(root: Root, term: str) -> None:
    """Raise `TermOver` unless this is the last run of a study that has begun."""
    try:
        current = root.read(TERM).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    if current != term:
        raise TermOver


class Workbench:
    """Does jobs, one at a time.

    Args:
        root: Where results go.
        cache: Folder for what can be recomputed.
        device: As the user writes it.
        level: Confidence level.
        fprs: False-positive rates.
        term: Mark of the run that this belongs to; None for none.
    """

    def __init__(
        self,
        root: Root,
        cache: Path,
        device: str,
        level: float,
        fprs: tuple[float, ...],
        term: str | None = None,
    ) -> None:
        self.root, self.cache, self.device = root, cache, device
        self.level, self.fprs = level, fprs
        self.store = TrialStore(root) if term is None else FencedStore(root, term)
        self.subjects = SubjectStore(root)
        self._open: _Open | None = None
        self._datasets: dict[str, ImageDataset] = {}

    def do(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Do a job. What goes wrong comes back as an outcome: a worker outlives its jobs.

        Returns:
            ``status``: ``ok``; ``failed``, with ``reason`` and ``traceback``; or ``storage``, when nothing can be
            written any more. And what the kind of job yields.
        """
        started = time.perf_counter()
        actions: dict[str, Callable[[Job, Progress | None], Outcome]] = {
            "train": self._train,
            "open": self._open_subject,
            "survey": self._survey,
            "share": self._share,
            "trial": self._trial,
            "measure": self._measure,
        }
        try:
            outcome = {"status": "ok", **actions[job["do"]](job, progress)}
        except Exception as error:
            storage = is_full_disk(error) or isinstance(error, PermissionError)
            outcome = {
                "status": "storage" if storage else "failed",
                "reason": reason_of(error),
                "traceback": traceback.format_exc(),
            }
        outcome["seconds"] = time.perf_counter() - started
        return outcome

    def _train(self, job: Job, progress: Progress | None) -> Outcome:
        path = self._trained(TrainConfig.model_validate(job["train"]), progress)
        return {"weights": str(path)}

    def _trained(self, config: TrainConfig, progress: Progress | None) -> Path:
        """The weights of a recipe: in the cache, else from the results, else trained now."""
        from securitynet.assessments.prepare_training import prepared_training
        from securitynet.models.store.train_target import train_model

        config, defense, backdoor = prepared_training(config)
        path = weights_path(config, self.cache)
        shared = f"models/{path.name}"
        with exclusive(path.with_suffix(".lock")):
            if self.root.folder is None and not path.exists() and self.root.exists(shared):
                for name in (path.name, model_record_path(path).name):
                    path.with_name(name).write_bytes(self.root.read(f"models/{name}"))
            train_model(
                config.model_copy(update={"out": path, "device": self.device}),
                defense=defense,
                backdoor=backdoor,
                progress=_epochs(progress),
            )
            if self.root.folder is None and not self.root.exists(shared):
                # Another machine that opens this target need not train it again.
                for part in (model_record_path(path), path):
                    self.root.write(f"models/{part.name}", part.read_bytes())
        return path

    def _subject(self, job: Job, progress: Progress | None = None) -> _Open:
        declared = job["subject"]
        if self._open is not None and self._open.key == declared["key"]:
            return self._open
        self._open = None
        gc.collect()  # the last target may be large, and be in a cycle
        options = dict(declared["options"])
        if declared["train"] is not None:
            options["weights"] = str(self._trained(TrainConfig.model_validate(declared["train"]), progress))
        config = AssessConfig.model_validate({**options, "cache": self.cache, "device": self.device})
        dataset = self._dataset(config) if config.dataset is not None else None
        told = None if progress is None else lambda done, total: progress("loading", done, total)
        subject = prepare(config, told, dataset=dataset)
        data = trial_data(subject)
        self._open = _Open(declared["key"], config, subject, data, {})
        return self._open

    def _dataset(self, config: AssessConfig) -> ImageDataset:
        options = load_options(config)
        key = str([config.dataset, options])
        if key not in self._datasets:
            while len(self._datasets) >= _DATASETS:
                self._datasets.pop(next(iter(self._datasets)))
            assert config.dataset is not None
            self._datasets[key] = securitynet.datasets.load(config.dataset, **options, cache=self.cache)
        self._datasets[key] = self._datasets.pop(key)  # the last used stays longest
        return self._datasets[key]

    def _open_subject(self, job: Job, progress: Progress | None) -> Outcome:
        started = time.perf_counter()
        opened = self._subject(job, progress)
        loaded = time.perf_counter()
        declared, subject, data = job["subject"], opened.subject, opened.data
        told = None if progress is None else lambda done, total: progress("querying", done, total)
        signals = collect(subject.target, data.dataset, data.judged, cache=self.cache, progress=told)
        measured = accuracies(signals, data, self.level)
        checks = _checks(declared, measured, job["tolerance"])
        wrong = [check for check in checks if not check.agrees]
        if wrong and job["on_mismatch"] == "fail":
            raise ModelError(
                f"{subject.target.reference} has a test accuracy of {wrong[0].found}, where {wrong[0].said} is said.",
                hint="Check dataset and normalize, or set on_mismatch = 'note'.",
            )
        splits = subject.splits
        record = SubjectRecord(
            key=declared["key"],
            label=declared["label"],
            status="ok",
            declared=declared["declared"],
            means=means_of(subject),
            membership=subject.membership,
            facts={
                "num_classes": signals.outputs.shape[1],
                "records": len(subject.dataset),
                "image_shape": list(subject.dataset.image_shape) if subject.dataset.images is not None else None,
                "members": len(splits.members),
                "non_members": len(splits.non_members),
                "known_members": len(splits.known_members),
                "known_non_members": len(splits.known_non_members),
                "split_seed": subject.split_seed,
                "normalize": subject.target.preprocessing.constants(),
            },
            training=subject.trained.model_dump(mode="json", exclude={"history"}) if subject.trained else None,
            catalog=declared["catalog"],
            codes=declared["codes"],
            checks=tuple(checks),
            measurements=tuple(measured),
            queries=signals.queries,
            notes=subject.target.notes,
            seconds={
                "load": round(loaded - started, 4),
                "signals": round(time.perf_counter() - loaded, 4),
            },
            environment=environment.describe(subject.target),
            finished=now(),
        )
        earlier = self.subjects.load(record.key)
        if earlier is None or _content(earlier) != _content(record):
            self.subjects.save(record)
        return {"record": record.model_dump(mode="json"), "asked": signals.asked}

    def _planned(self, opened: _Open, trial: dict[str, Any]) -> PlannedTrial:
        method = make_method(trial["kind"], trial["method"], trial["settings"])
        threat_model = parse_threat_model(trial["threat_model"])
        spec = specification(trial["method"], method, threat_model, means_of(opened.subject), trial["seed"])
        if spec.id != trial["id"]:
            raise ConfigurationError(
                f"{opened.subject.target.reference} is not what it was when the study opened it.",
                hint="Its weights or data have been replaced meanwhile; run the study again.",
            )
        return PlannedTrial(trial["name"], method, spec)

    def _context(self, trial: dict[str, Any], progress: Progress | None) -> Context:
        told = None if progress is None else lambda done, total: progress(trial["name"], done, total)
        return Context(seed=trial["seed"], cache=self.cache, device=self.device, progress=told)

    def _survey(self, job: Job, progress: Progress | None) -> Outcome:
        """Which shared work trials need: trial id -> keys, and key -> what it is."""
        opened = self._subject(job, progress)
        needs: dict[str, list[str]] = {}
        for trial in job["trials"]:
            planned = self._planned(opened, trial)
            target = opened.subject.target.under(planned.spec.threat_model.access)
            context = self._context(trial, None)
            context.threat_model = planned.spec.threat_model
            try:
                work = planned.method.shared_work(target, opened.data, context)
            except SecurityNetError:
                continue  # the trial itself will meet the same error, and record it
            opened.work.update({piece.key: piece for piece in work})
            needs[trial["id"]] = [piece.key for piece in work]
        return {"needs": needs, "what": {key: piece.what for key, piece in opened.work.items()}}

    def _share(self, job: Job, progress: Progress | None) -> Outcome:
        opened = self._subject(job, progress)
        if job["key"] not in opened.work:
            self._survey({**job, "trials": [job["trial"]]}, None)
        work = opened.work[job["key"]]
        work.run(None if progress is None else lambda done, total: progress(work.what, done, total))
        return {}

    def _trial(self, job: Job, progress: Progress | None) -> Outcome:
        opened = self._subject(job, progress)
        trial = job["trial"]
        planned = self._planned(opened, trial)
        context = self._context(trial, progress)
        measures = Measures(self.level, self.fprs, trial["seed"])
        if progress:
            progress(BEGAN, 0, 0)
        done = run_trial(planned, opened.subject.target, opened.data, context, self.store, measures)
        return {"trial": done.result.status, "reason": done.result.reason}

    def _measure(self, job: Job, progress: Progress | None) -> Outcome:
        """Measure anew what a finished trial kept, at other levels or rates."""
        trial = job["trial"]
        earlier = self.store.load(trial["id"])
        if earlier is not None:
            method = make_method(trial["kind"], trial["method"], trial["settings"])
            planned = PlannedTrial(trial["name"], method, earlier.spec)
            measures = Measures(self.level, self.fprs, trial["seed"])
            if reuse(planned, self.store, measures, any_version=True) is not None:
                return {"trial": "ok"}
        return self._trial(job, progress)


def weights_path(config: TrainConfig, cache: Path) -> Path:
    """Where the weights of a recipe are kept: under a name made of all its settings."""
    return cache / "models" / config.model_copy(update={"out": None}).weights_file.name


def reason_of(error: BaseException) -> str:
    """An error in one line, for people."""
    if isinstance(error, SecurityNetError):
        return str(error)
    if is_full_disk(error) or isinstance(error, PermissionError):
        assert isinstance(error, OSError)
        return f"{error.strerror or error}: {error.filename or 'the place of results or cache'}"
    return f"{type(error).__name__}: {error}"


def _checks(declared: dict[str, Any], measured: list[Measurement], tolerance: float) -> list[Check]:
    """Whether the target is as accurate as the catalog or the study file says."""
    said = declared["accuracy"]
    found = next(m.value for m in measured if m.name == "target.test_accuracy")
    checks = []
    if declared["checksum"] is not None:  # compared when the study was planned, and wrong ones are never opened
        checks.append(Check(what="checksum", said=declared["checksum"], found=declared["checksum"], agrees=True))
    if said is not None and found is not None:
        agrees = bool(np.abs(found - said) <= tolerance)
        checks.append(Check(what="accuracy", said=f"{said:.4f}", found=f"{found:.4f}", agrees=agrees))
    return checks


def _content(record: SubjectRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"seconds", "environment", "finished"})


def _epochs(progress: Progress | None) -> Any:
    return None if progress is None else lambda done, total, _history: progress("training", done, total)
