"""A preview of what running a study would do; it writes no results of the study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from securitynet.defenses.base import resolve_defense
from securitynet.files import find_cache_folder
from securitynet.models.training.config import TrainConfig
from securitynet.results.excluded_entries import describe_excluded
from securitynet.results.index import Index
from securitynet.studies.definition.plan import StudyPlan, plan_study
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution.absent import Absent, find_absent
from securitynet.studies.execution.progress import Counts, StudyProgress
from securitynet.studies.execution.run import StudyLocation, choose_results_root, locate_results
from securitynet.studies.execution.worker_tasks import locate_recipe_weights


@dataclass
class StudyPreview:
    """What a run would do.

    Attributes:
        plan: The study.
        location: Location of its results.
        cache: Folder for what can be recomputed.
        counts: Numbers of trials by state.
        run: Method -> number of trials that would be run.
        skipped: Method and reason -> number of trials that cannot be run.
        unopened: Number of targets that have not been opened yet, whose trials are estimates.
        obstacles: Label of a target that cannot be opened -> reason.
        train: Targets that would be trained.
        absent: Datasets and packages that the targets need and that are not on this machine.
    """

    plan: StudyPlan
    location: StudyLocation
    cache: Path
    counts: Counts = field(default_factory=Counts)
    run: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unopened: int = 0
    obstacles: dict[str, str] = field(default_factory=dict)
    train: list[TargetPlan] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {
            "name": self.plan.study.name,
            "results": self.location.root.name,
            "targets": len(self.plan.targets),
            "unopened": self.unopened,
            "train": [target.label for target in self.train],
            "counts": asdict(self.counts),
            "run": dict(sorted(self.run.items())),
            "skipped": dict(sorted(self.skipped.items())),
            "obstacles": self.obstacles,
            "excluded": [entry.model_dump(mode="json") for entry in self.plan.excluded],
            "absent": [asdict(item) for item in self.absent],
        }

    def lines(self) -> Iterator[str]:
        """Return lines of text for people."""
        counts = self.counts
        yield f"{self.plan.study.name}: {counts.total:,} trials on {len(self.plan.targets):,} targets"
        if self.plan.study.description:
            yield f"  {self.plan.study.description}"
        yield f"Results: {self.location.root.name}"
        yield f"There already: {counts.ok:,} ok, {counts.failed:,} failed"
        if counts.other_version:
            yield f"  {counts.other_version:,} of them made by another version; --refresh runs them again"
        yield f"To run: {sum(self.run.values()):,}"
        yield from (f"  {number:>6,} × {name}" for name, number in sorted(self.run.items()))
        if self.train:
            yield f"To train first: {len(self.train):,} targets"
        if self.unopened:
            yield f"Targets not opened yet: {self.unopened:,} (the numbers of their trials are estimates)"
        if self.skipped:
            yield f"Will be skipped: {sum(self.skipped.values()):,}"
            yield from (f"  {number:>6,} × {reason}" for reason, number in sorted(self.skipped.items()))
        if self.obstacles:
            yield f"Targets that can't be opened: {len(self.obstacles):,}"
            yield from (f"  {label}: {why}" for label, why in self.obstacles.items())
        yield from describe_excluded(self.plan.excluded)
        if self.absent:
            yield f"Absent on this machine: {len(self.absent):,}"
            for item in self.absent:
                yield f"  {item.what} ({item.targets:,} targets): {item.remedy}"


def preview_study(
    file: Path,
    *,
    out: str | None = None,
    cache: Path | None = None,
    retry_failed: bool = False,
    refresh: bool = False,
    trust: Collection[str] = (),
) -> StudyPreview:
    """Preview what running a study would do.

    Args:
        file: The study file.
        out: Folder or URL of the results; None for that of the file.
        cache: Folder for what can be recomputed; None for the user's cache folder.
        retry_failed: Whether failed trials would be run again.
        refresh: Whether trials of other versions of this package would be run again.
        trust: Entries of the catalog and references that the user trusts.

    Raises:
        SecurityNetError: If something in the study file is invalid.
    """
    cache = (cache or find_cache_folder()).absolute()
    plan = plan_study(file, cache, trust=trust)
    location = locate_results(choose_results_root(plan.study, plan.base, out))
    index = Index("sqlite://", location.root)
    try:
        index.refresh()
        progress = StudyProgress(plan, index, retry_failed=retry_failed, refresh=refresh)
    finally:
        index.close()
    preview = StudyPreview(plan, location, cache)
    for target in plan.targets:
        record = progress.records.get(target.key)
        opened = record is not None and record.status == "ok"
        preview.unopened += not opened
        expected = progress.expected.get(target.key)
        if expected is None:
            trials = plan.trials(target, plan.capabilities(target, record))
            expected = Counter((trial.plan.name, trial.obstacle) for trial in trials)
        if opened:
            assert record is not None
            preview.run.update(trial.plan.name for trial in progress.find_pending(target, record).run)
        elif target.obstacle is not None:
            preview.obstacles[target.label] = target.obstacle
        for (name, obstacle), number in expected.items():
            if obstacle is not None:
                preview.skipped[f"{name}: {obstacle}"] += number
            elif not opened and target.obstacle is None and (record is None or retry_failed):
                preview.run[name] += number
        if target.train is not None and not opened and not _is_trained(target.train, cache):
            preview.train.append(target)
    preview.counts = progress.count_all()
    preview.absent = find_absent(plan.targets)
    return preview


def _is_trained(train: dict[str, Any], cache: Path) -> bool:
    """Return whether the weights of a recipe are in the cache."""
    return locate_recipe_weights(resolve_defense(TrainConfig.model_validate(train))[0], cache).exists()
