"""The scheduler of a study: chooses the next task of a free worker. It only keeps track of tasks and does no I/O.

The tasks depend on each other as follows: a recipe is trained; then its target can be opened (loaded, checked,
queried); then its trials can run, each once the shared work that it depends on is done.

The order minimises the number of times that targets are opened, which is slow and fills a worker's memory: a worker
stays with its open target until nothing is left to do there, and a target is opened by further workers only if they
would otherwise be idle.

Some trials are cheaper if they run together with those of other targets (`Method.run_together`). They wait, and their
small targets stay open, until so many of them wait at a worker that they run as one task, or until it has nothing else
to open or to train. A group that is lost with its worker is run one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from securitynet.files import hash_stably
from securitynet.results.study_targets import StudyTargetRecord
from securitynet.studies.definition.plan import StudyTrial
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution.task_records import TRIAL_KINDS, TaskKind

WorkState = Literal["todo", "running", "done", "failed"]

MOST_TOGETHER = 32
"""Targets that a worker keeps open at once, and trials that run together, at most."""

MOST_MEMORY = 1 << 30
"""Bytes that the targets which a worker keeps open take together, about; a target of more than an eighth of it does not
wait for others."""


@dataclass(eq=False)
class TargetTasks:
    """A target with pending tasks.

    Attributes:
        plan: The declared target.
        state: ``closed`` (to be opened), ``opening``, ``open``, ``failed``, or ``done`` (nothing is left).
        trials: Trials that have not been started.
        dependencies_known: Whether the dependencies of the trials on shared work are known.
        dependencies: Trial id -> keys of shared work.
        groups: Trial id -> key of the group of trials, on several targets, with which it is to run together.
        memory: Bytes that the open target takes in a worker, if it waits for others.
        workers: Slots that hold the target open.
        running: Number of its running tasks.
    """

    plan: TargetPlan
    state: Literal["closed", "opening", "open", "failed", "done"] = "closed"
    trials: deque[StudyTrial] = field(default_factory=deque)
    dependencies_known: bool = True
    dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    workers: set[int] = field(default_factory=set)
    running: int = 0

    @property
    def divisible(self) -> bool:
        """Whether several workers may open the target: not with a query budget, because each counts its own queries."""
        return "max_queries" not in self.plan.options

    @property
    def waits(self) -> bool:
        """Whether it is open and some of its trials wait for those of other targets."""
        return self.state == "open" and any(trial.id in self.groups for trial in self.trials)


Member = tuple[TargetTasks, StudyTrial]
"""A target and its trial in a group."""


@dataclass(frozen=True, eq=False)
class Task:
    """A task for a worker.

    Attributes:
        kind: Kind of the task.
        target: The target.
        trial: The trial; for shared work, a trial that depends on it.
        key: Key of the shared work or of the recipe.
        members: Targets and trials that run together, the first of which is ``target``.
    """

    kind: TaskKind
    target: TargetTasks
    trial: StudyTrial | None = None
    key: str | None = None
    members: tuple[Member, ...] = ()

    @property
    def targets(self) -> list[TargetTasks]:
        """The targets that it concerns."""
        return [target for target, _ in self.members] or [self.target]

    @property
    def identity(self) -> str:
        """Key for counting attempts."""
        trial = self.trial if self.kind in TRIAL_KINDS else None
        return f"{self.kind}:{trial.id if trial else self.key or self.target.plan.key}"

    @property
    def words(self) -> str:
        """Description for people."""
        if self.members:
            return f"{self.members[0][1].words} on {len(self.members)} targets"
        if self.kind in TRIAL_KINDS and self.trial is not None:
            return f"{self.trial.words} on {self.target.plan.label}"
        verbs = {"train": "training", "run_dependency": "shared work for"}
        return f"{verbs.get(self.kind, 'opening')} {self.target.plan.label}"


class Schedule:
    """The pending tasks of a study.

    Args:
        targets: Targets with pending tasks, in the order of the study.
        memory: Bytes that the targets which a worker keeps open may take together, about.
    """

    def __init__(self, targets: Iterable[TargetTasks], *, memory: int = MOST_MEMORY) -> None:
        self.targets, self.memory = list(targets), memory
        # Keyed by the recipe, not by the target: targets that differ only in their assessment share one training.
        self._trained = {key: target.plan for target in self.targets if (key := target.plan.train_key)}
        self.recipes: dict[str, WorkState] = dict.fromkeys(self._trained, "todo")
        # Keyed by the work itself, so that trials of several methods and of several targets share it.
        self.shared_work: dict[str, WorkState] = {}
        self.descriptions: dict[str, str] = {}
        self._recomputed: set[str] = set()
        self._held: dict[int, list[TargetTasks]] = {}
        self._unopened = deque(self.targets)
        self._open: list[TargetTasks] = []

    def mark_recomputed(self, ids: Iterable[str]) -> None:
        """Mark trials as finished, so that only their metrics are computed again."""
        self._recomputed |= set(ids)

    @property
    def finished(self) -> bool:
        """Whether nothing is left and nothing is running."""
        return all(target.state in ("done", "failed") and not target.running for target in self.targets)

    def next(self, slot: int) -> Task | None:
        """Return the next task of a free slot and mark it as running; None if there is none now.

        In order of preference: a task of the slot's own open targets, which needs no loading; a full group of their
        trials; another target to open, which no other worker holds; a recipe to train, which makes another target ready
        to be opened; a group that is not full; and last, a task of a target that another worker holds. The latter comes
        last because the slot has to open that target as well, which only pays if it would otherwise be idle.
        """
        held = self._held.get(slot, [])
        task = next(filter(None, map(self._choose_task, reversed(held))), None)
        if task is None and self._is_full(held):
            task = self._choose_group(held)
        task = (
            task
            or self._choose_closed()
            or self._choose_recipe()
            or self._choose_group(held)
            or self._choose_help()
            or self._choose_group([target for target in self._open if target.divisible])
        )
        if task is None:
            return None
        self._set_state(task, "running")
        if task.kind == "open":
            task.target.state = "opening"
        for target, trial in task.members or [(task.target, task.trial)]:
            target.running += 1
            if trial is not None and (task.members or task.kind in TRIAL_KINDS):
                target.trials.remove(trial)
        if task.kind != "train":  # which opens no target, so the worker keeps its open targets
            self._hold(slot, task)
        return task

    def list_held(self, slot: int) -> list[str]:
        """List the keys of the targets that a slot is to keep open."""
        return [target.plan.key for target in self._held.get(slot, [])]

    def _hold(self, slot: int, task: Task) -> None:
        """Record which targets a slot holds open with this task: its own, and those with trials that wait."""
        before, own = self._held.get(slot, []), task.targets
        room = not self._is_full(before) or all(target in before for target in own)
        kept = [target for target in before if target not in own and target.waits and room]
        self.release(slot)
        self._held[slot] = [*kept, *own]
        for target in self._held[slot]:
            target.workers.add(slot)

    def release(self, slot: int) -> None:
        """Record that a slot holds no target open any more, as when its worker died."""
        for target in self._held.pop(slot, []):
            target.workers.discard(slot)

    def end(self, task: Task, ok: bool) -> None:
        """Record the end of a task; the caller then calls `open_target`, `set_dependencies` or `fail_target`."""
        self._set_state(task, "done" if ok else "failed")
        for target in task.targets:
            target.running -= 1
            self._settle(target)

    def put_back(self, target: TargetTasks, trial: StudyTrial) -> None:
        """Put back a trial that could not be run together with others; it is run alone."""
        target.groups.pop(trial.id, None)
        target.trials.append(trial)

    def requeue(self, task: Task) -> None:
        """Put back a task that was lost with its worker."""
        if task.members:  # one by one, so that a trial that kills its worker costs no other
            for target, trial in task.members:
                target.running -= 1
                self.put_back(target, trial)
            return
        task.target.running -= 1
        self._set_state(task, "todo")
        if task.kind == "open":
            task.target.state = "closed"
            self._unopened.appendleft(task.target)
        elif task.trial is not None and task.kind in TRIAL_KINDS:
            # At the end of the queue, so that a trial that kills its worker does not delay the others at each attempt.
            task.target.trials.append(task.trial)

    def open_target(
        self,
        target: TargetTasks,
        trials: Iterable[StudyTrial],
        *,
        list_dependencies: bool,
        groups: Mapping[str, str] | None = None,
        memory: int | None = None,
    ) -> None:
        """Record that a target is open, and add its pending trials.

        Args:
            target: The target.
            trials: Pending trials, in the order in which they are to run.
            list_dependencies: Whether a worker must first list the shared work that they depend on.
            groups: Trial id -> key of the group with which it may run together.
            memory: Bytes that the open target takes; None if that is not known.
        """
        target.trials = deque(trials)
        if memory is not None and memory <= self.memory // 8 and target.divisible:
            target.groups, target.memory = dict(groups or {}), memory
        target.dependencies_known = not list_dependencies
        target.state = "open"
        if target not in self._open:
            self._open.append(target)
        self._settle(target)

    def set_dependencies(
        self, target: TargetTasks, dependencies: Mapping[str, Sequence[str]], descriptions: Mapping[str, str]
    ) -> None:
        """Set the shared work that the trials of a target depend on.

        Args:
            target: The target.
            dependencies: Trial id -> keys of shared work.
            descriptions: Key of shared work -> description for people.
        """
        target.dependencies, target.dependencies_known = dependencies, True
        for keys in dependencies.values():
            for key in keys:
                self.shared_work.setdefault(key, "todo")  # another target may have added it already, or it may be done
        self.descriptions.update(descriptions)

    def fail_target(self, target: TargetTasks) -> list[StudyTrial]:
        """Record that a target cannot be opened; remove and return its trials."""
        given_up, target.trials = list(target.trials), deque()
        target.state = "failed"
        return given_up

    def take_blocked(self, target: TargetTasks) -> list[tuple[StudyTrial, str]]:
        """Remove and return the trials whose shared work failed, as (trial, key of the work)."""
        blocked = []
        for trial in list(target.trials):
            failed = [key for key in target.dependencies.get(trial.id, ()) if self.shared_work.get(key) == "failed"]
            if failed:
                target.trials.remove(trial)
                blocked.append((trial, failed[0]))
        self._settle(target)
        return blocked

    def list_unopened(self) -> list[TargetTasks]:
        """List the targets that have not been opened yet."""
        return [target for target in self.targets if target.state in ("closed", "opening")]

    def list_trainings(self) -> list[TargetPlan]:
        """List the recipes that have not been trained yet: for each, a target that needs it."""
        return [self._trained[key] for key, state in self.recipes.items() if state in ("todo", "running")]

    def _set_state(self, task: Task, state: WorkState) -> None:
        """Set the state of the recipe or shared work of a task; other tasks have none."""
        if task.key is not None and task.kind == "train":
            self.recipes[task.key] = state
        elif task.key is not None and task.kind == "run_dependency":
            self.shared_work[task.key] = state

    def _settle(self, target: TargetTasks) -> None:
        """Mark an open target without trials as done once its last task has ended, which might be put back before."""
        if target.state == "open" and not target.trials and not target.running:
            target.state = "done"
            if target in self._open:
                self._open.remove(target)

    def _choose_task(self, target: TargetTasks) -> Task | None:
        """Choose a task of an open target: a trial that is ready, else shared work that a trial is waiting for."""
        if target.state != "open":
            return None
        if not target.dependencies_known:
            # One worker lists the dependencies, and nothing else of the target runs meanwhile, because it is not known
            # which trials are ready.
            return None if target.running else Task("list_dependencies", target)
        for trial in target.trials:
            if trial.id not in target.groups and self._is_ready(target, trial):
                return Task("recompute_metrics" if trial.id in self._recomputed else "run_trial", target, trial)
        # Shared work only when no trial is ready: results then arrive early, and the remaining pieces of shared work
        # are spread over the workers that become free.
        for trial in target.trials:
            for key in target.dependencies.get(trial.id, ()):
                if self.shared_work.get(key) == "todo":
                    return Task("run_dependency", target, trial, key)
        return None

    def _is_ready(self, target: TargetTasks, trial: StudyTrial) -> bool:
        return all(self.shared_work.get(key) == "done" for key in target.dependencies.get(trial.id, ()))

    def _choose_group(self, targets: Sequence[TargetTasks]) -> Task | None:
        """Choose the largest group of trials that are ready on these targets; a trial without others runs alone."""
        groups: dict[str, list[Member]] = {}
        for target in targets:
            if target.state == "open" and target.dependencies_known:
                for trial in target.trials:
                    key = target.groups.get(trial.id)
                    if key is not None and self._is_ready(target, trial):
                        groups.setdefault(key, []).append((target, trial))
        if not groups:
            return None
        members = max(groups.values(), key=len)[:MOST_TOGETHER]
        kind: TaskKind = "run_trial" if len(members) == 1 else "run_together"
        return Task(kind, *members[0], members=() if len(members) == 1 else tuple(members))

    def _is_full(self, held: Sequence[TargetTasks]) -> bool:
        """Whether a slot should open no further target before the trials that wait on its targets have run."""
        waiting = [target for target in held if target.waits]
        return len(waiting) >= MOST_TOGETHER or sum(target.memory for target in waiting) > self.memory // 2

    def _choose_closed(self) -> Task | None:
        """Choose the first target in the order of the study that can be opened; targets to be trained go to the end."""
        for _ in range(len(self._unopened)):
            target = self._unopened.popleft()
            if target.state != "closed":
                continue  # its recipe failed, so it leaves the queue
            recipe = target.plan.train_key
            if recipe is None or self.recipes[recipe] == "done":
                return Task("open", target)
            self._unopened.append(target)
        return None

    def _choose_recipe(self) -> Task | None:
        for target in self._unopened:
            recipe = target.plan.train_key
            if target.state == "closed" and recipe is not None and self.recipes[recipe] == "todo":
                return Task("train", target, key=recipe)
        return None

    def _choose_help(self) -> Task | None:
        """Choose a task of a target that other workers hold: of the one with the most trials left."""
        for target in sorted(self._open, key=lambda target: -len(target.trials)):
            if target.divisible or not target.workers:
                task = self._choose_task(target)
                if task is not None:
                    return task
        return None


def find_group(trial: StudyTrial, record: StudyTargetRecord) -> str:
    """Return the key of the trials that may run together: of one method and seed, on targets of one dataset and split.

    Args:
        trial: The trial.
        record: Record of its opened target.
    """
    spec = trial.spec.model_dump(mode="json", exclude={"target", "training"})
    return hash_stably({"trial": spec, "num_classes": record.facts["num_classes"]})
