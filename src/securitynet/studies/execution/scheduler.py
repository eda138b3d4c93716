"""The order of a study's work: which task a free worker gets next. Pure bookkeeping: nothing here reads or writes.

The graph: a recipe is trained; then its target can be opened (loaded, checked, queried); then its trials can run, each
once the shared work that it depends on is done.

What the order is for: opening a target is dear and fills a worker's memory, so a worker stays with the target that it
holds open until that has nothing left for it, and every target is opened by as few workers as keep all of them busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from securitynet.studies.definition.plan import StudyTrial
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution.task_records import TRIAL_KINDS, TaskKind

WorkState = Literal["todo", "running", "done", "failed"]


@dataclass(eq=False)
class TargetTasks:
    """A target with work to do.

    Attributes:
        plan: What is declared.
        state: ``closed``: to be opened; ``opening``; ``open``; ``failed``; ``done``: nothing is left.
        trials: To be run; those that run or have run are no longer among them.
        dependencies_known: Whether it is known which shared work the trials depend on.
        dependencies: Trial id -> keys of shared work.
        workers: Slots that hold it open.
        running: How many of its tasks run.
    """

    plan: TargetPlan
    state: Literal["closed", "opening", "open", "failed", "done"] = "closed"
    trials: deque[StudyTrial] = field(default_factory=deque)
    dependencies_known: bool = True
    dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    workers: set[int] = field(default_factory=set)
    running: int = 0

    @property
    def divisible(self) -> bool:
        """Whether several workers may query the target: not if its queries are capped, for each counts its own."""
        return "max_queries" not in self.plan.options


@dataclass(frozen=True, eq=False)
class Task:
    """Something for a worker to do.

    Attributes:
        kind: What.
        target: For which target.
        trial: Which trial; for shared work one that depends on it.
        key: Of shared work, or of a recipe.
    """

    kind: TaskKind
    target: TargetTasks
    trial: StudyTrial | None = None
    key: str | None = None

    @property
    def identity(self) -> str:
        """For counting attempts."""
        trial = self.trial if self.kind in TRIAL_KINDS else None
        return f"{self.kind}:{trial.id if trial else self.key or self.target.plan.key}"

    @property
    def words(self) -> str:
        """For people."""
        if self.kind in TRIAL_KINDS and self.trial is not None:
            return f"{self.trial.words} on {self.target.plan.label}"
        verbs = {"train": "training", "run_dependency": "shared work for"}
        return f"{verbs.get(self.kind, 'opening')} {self.target.plan.label}"


class Schedule:
    """What is to be done, and what a free slot does next.

    Args:
        targets: In the order of the study; those with nothing to do may be left out.
    """

    def __init__(self, targets: Iterable[TargetTasks]) -> None:
        self.targets = list(targets)
        # Keyed by the recipe, not by the target: targets that differ only in how they are assessed share one training.
        self.recipes: dict[str, WorkState] = {
            target.plan.train_key: "todo" for target in self.targets if target.plan.train_key
        }
        # Keyed by the work itself, so that trials of several methods, and of several targets, share it.
        self.shared_work: dict[str, WorkState] = {}
        self.descriptions: dict[str, str] = {}
        self._recomputed: set[str] = set()
        self._held: dict[int, TargetTasks] = {}
        self._unopened = deque(self.targets)
        self._open: list[TargetTasks] = []

    def mark_recomputed(self, ids: Iterable[str]) -> None:
        """These trials are finished: only their metrics are computed again."""
        self._recomputed |= set(ids)

    @property
    def finished(self) -> bool:
        """Whether nothing is left, and nothing runs."""
        return all(target.state in ("done", "failed") and not target.running for target in self.targets)

    def next(self, slot: int) -> Task | None:
        """The next task of a free slot; it counts as running. None if there is nothing it could do now.

        In this order of preference: what the slot's own target still needs, because nothing has to be loaded for it;
        another target to open, because each one opened is work that nobody else holds; a recipe to train, because that
        makes another target ready to be opened; and at last another worker's target. That comes last because the slot
        must open the target as well, which is wasted unless it would idle otherwise.
        """
        held = self._held.get(slot)
        task = (
            (held and self._choose_task(held)) or self._choose_closed() or self._choose_recipe() or self._choose_help()
        )
        if task is None:
            return None
        task.target.running += 1
        self._set_state(task, "running")
        if task.kind == "open":
            task.target.state = "opening"
        elif task.kind in TRIAL_KINDS:
            assert task.trial is not None
            task.target.trials.remove(task.trial)
        # A worker that trains keeps the target that it holds open: training opens none.
        if task.kind != "train" and held is not task.target:
            self.release(slot)
            self._held[slot] = task.target
            task.target.workers.add(slot)
        return task

    def release(self, slot: int) -> None:
        """A slot holds nothing open any more: its worker died, or turns to another target."""
        held = self._held.pop(slot, None)
        if held is not None:
            held.workers.discard(slot)

    def end(self, task: Task, ok: bool) -> None:
        """A task has ended. What follows is for the caller: `open_target`, `set_dependencies` or `fail_target`."""
        task.target.running -= 1
        self._set_state(task, "done" if ok else "failed")
        self._settle(task.target)

    def requeue(self, task: Task) -> None:
        """A task was lost with its worker, and is to be begun again."""
        task.target.running -= 1
        self._set_state(task, "todo")
        if task.kind == "open":
            task.target.state = "closed"
            self._unopened.appendleft(task.target)
        elif task.trial is not None and task.kind in TRIAL_KINDS:
            # At the end of the line: a trial that kills its worker must not hold up the others at each attempt.
            task.target.trials.append(task.trial)

    def open_target(self, target: TargetTasks, trials: Iterable[StudyTrial], *, list_dependencies: bool) -> None:
        """A target is open; these of its trials are to be run.

        Args:
            target: Which.
            trials: To be run, in this order.
            list_dependencies: Whether a worker has to find out first which shared work they depend on.
        """
        target.trials = deque(trials)
        target.dependencies_known = not list_dependencies
        target.state = "open"
        if target not in self._open:
            self._open.append(target)
        self._settle(target)

    def set_dependencies(
        self, target: TargetTasks, dependencies: Mapping[str, Sequence[str]], descriptions: Mapping[str, str]
    ) -> None:
        """It is known which shared work a target's trials depend on.

        Args:
            target: Which.
            dependencies: Trial id -> keys of shared work.
            descriptions: Key -> what the work is, for people.
        """
        target.dependencies, target.dependencies_known = dependencies, True
        for keys in dependencies.values():
            for key in keys:
                self.shared_work.setdefault(key, "todo")  # another target may have brought it, or had it done
        self.descriptions.update(descriptions)

    def fail_target(self, target: TargetTasks) -> list[StudyTrial]:
        """A target can't be opened; its trials are given up and returned."""
        given_up, target.trials = list(target.trials), deque()
        target.state = "failed"
        return given_up

    def take_blocked(self, target: TargetTasks) -> list[tuple[StudyTrial, str]]:
        """Trials whose shared work failed, taken from the target: (trial, key of the work)."""
        blocked = []
        for trial in list(target.trials):
            failed = [key for key in target.dependencies.get(trial.id, ()) if self.shared_work.get(key) == "failed"]
            if failed:
                target.trials.remove(trial)
                blocked.append((trial, failed[0]))
        self._settle(target)
        return blocked

    def list_unopened(self) -> list[TargetTasks]:
        """Targets that are not opened yet."""
        return [target for target in self.targets if target.state in ("closed", "opening")]

    def _set_state(self, task: Task, state: WorkState) -> None:
        """Note the state of the recipe or the shared work that a task does; other tasks do neither."""
        if task.key is not None and task.kind == "train":
            self.recipes[task.key] = state
        elif task.key is not None and task.kind == "run_dependency":
            self.shared_work[task.key] = state

    def _settle(self, target: TargetTasks) -> None:
        """An open target with no trials left is done, but not before its last task has ended: that may come back."""
        if target.state == "open" and not target.trials and not target.running:
            target.state = "done"
            if target in self._open:
                self._open.remove(target)

    def _choose_task(self, target: TargetTasks) -> Task | None:
        """A task of an open target: a trial that can run now, else shared work that one is waiting for."""
        if target.state != "open":
            return None
        if not target.dependencies_known:
            # One worker lists them, and nothing of the target runs meanwhile: until the list is there, nobody can tell
            # which trials are ready.
            return None if target.running else Task("list_dependencies", target)
        for trial in target.trials:
            if all(self.shared_work.get(key) == "done" for key in target.dependencies.get(trial.id, ())):
                return Task("recompute_metrics" if trial.id in self._recomputed else "run_trial", target, trial)
        # Only when no trial is ready: while trials run, the results come in early, and the pieces of shared work that
        # are left are spread over the workers that turn up.
        for trial in target.trials:
            for key in target.dependencies.get(trial.id, ()):
                if self.shared_work.get(key) == "todo":
                    return Task("run_dependency", target, trial, key)
        return None

    def _choose_closed(self) -> Task | None:
        """The first target in the order of the study that can be opened; those without their weights go to the end."""
        for _ in range(len(self._unopened)):
            target = self._unopened.popleft()
            if target.state != "closed":
                continue  # it failed with its recipe; it leaves the queue
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
        """A task of a target that other workers hold: of the one with the most trials left."""
        for target in sorted(self._open, key=lambda target: -len(target.trials)):
            if target.divisible or not target.workers:
                task = self._choose_task(target)
                if task is not None:
                    return task
        return None
