"""The order of a study's work: which task a free worker gets next. Pure bookkeeping: nothing here reads or writes.

The graph: a recipe is trained; then its subject can be opened (loaded, checked, asked); then its trials can run, each
once the shared work that it needs is done. A worker stays with the subject that it holds open, and helps with another
one's trials when nothing else is to be done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from securitynet.studies.definition.plan import StudyTrial
from securitynet.studies.definition.targets import SubjectPlan

TaskKind = Literal["train", "open", "survey", "share", "trial", "measure"]


@dataclass(eq=False)
class Subject:
    """A subject with work to do.

    Attributes:
        plan: What is declared.
        state: ``closed``: to be opened; ``opening``; ``open``; ``failed``; ``done``: nothing is left.
        trials: That can run.
        surveyed: Whether it is known which shared work they need.
        needs: Trial id -> keys of shared work.
        workers: Slots that hold it open.
    """

    plan: SubjectPlan
    state: Literal["closed", "opening", "open", "failed", "done"] = "closed"
    trials: deque[StudyTrial] = field(default_factory=deque)
    surveyed: bool = True
    needs: dict[str, list[str]] = field(default_factory=dict)
    workers: set[int] = field(default_factory=set)
    running: int = 0

    @property
    def divisible(self) -> bool:
        """Whether several workers may ask its target: not if its queries are capped, for each would count its own."""
        return "max_queries" not in self.plan.options


@dataclass(frozen=True, eq=False)
class Task:
    """Something for a worker to do.

    Attributes:
        kind: What.
        subject: For which subject.
        trial: Which trial; for shared work one that needs it.
        key: Of shared work, or of a recipe.
    """

    kind: TaskKind
    subject: Subject
    trial: StudyTrial | None = None
    key: str | None = None

    @property
    def identity(self) -> str:
        """For counting attempts."""
        return ":".join([self.kind, self.trial.id if self.kind in ("trial", "measure") and self.trial else
                         self.key or self.subject.plan.key])  # fmt: skip

    @property
    def words(self) -> str:
        """For people."""
        if self.kind in ("trial", "measure") and self.trial is not None:
            return f"{self.trial.words} on {self.subject.plan.label}"
        verb = {"train": "training", "open": "opening", "survey": "opening", "share": "shared work for"}
        return f"{verb.get(self.kind, self.kind)} {self.subject.plan.label}"


class Schedule:
    """What is to be done, and what a free slot does next.

    Args:
        subjects: In the order of the study; those with nothing to do may be left out.
    """

    def __init__(self, subjects: Iterable[Subject]) -> None:
        self.subjects = list(subjects)
        self.recipes: dict[str, Literal["todo", "running", "done", "failed"]] = {
            subject.plan.train_key: "todo" for subject in self.subjects if subject.plan.train_key
        }
        self.shared: dict[str, Literal["todo", "running", "done", "failed"]] = {}
        self.what: dict[str, str] = {}
        self._remeasured: set[str] = set()
        self._holds: dict[int, Subject] = {}
        self._unopened = deque(self.subjects)
        self._opened: list[Subject] = []

    def remeasure(self, ids: Iterable[str]) -> None:
        """These trials are finished and only measured anew."""
        self._remeasured |= set(ids)

    @property
    def finished(self) -> bool:
        """Whether nothing is left, and nothing runs."""
        return all(s.state in ("done", "failed") and not s.running for s in self.subjects)

    def next(self, slot: int) -> Task | None:
        """The next task of a free slot; it counts as running. None if there is nothing it could do now."""
        held = self._holds.get(slot)
        task = (held and self._of(held)) or self._to_open() or self._to_train() or self._to_help()
        if task is None:
            return None
        task.subject.running += 1
        if task.kind == "train":
            assert task.key is not None
            self.recipes[task.key] = "running"
        elif task.kind == "share":
            assert task.key is not None
            self.shared[task.key] = "running"
        elif task.kind == "open":
            task.subject.state = "opening"
        elif task.kind in ("trial", "measure"):
            assert task.trial is not None
            task.subject.trials.remove(task.trial)
        if task.kind != "train" and held is not task.subject:
            self.release(slot)
            self._holds[slot] = task.subject
            task.subject.workers.add(slot)
        return task

    def release(self, slot: int) -> None:
        """A slot holds nothing open any more: its worker died, or turns to another subject."""
        held = self._holds.pop(slot, None)
        if held is not None:
            held.workers.discard(slot)

    def ended(self, task: Task, ok: bool) -> None:
        """A task has ended. What follows from it is for the caller: `opened`, `surveyed`, `fail`."""
        task.subject.running -= 1
        if task.kind == "train" and task.key is not None:
            self.recipes[task.key] = "done" if ok else "failed"
        elif task.kind == "share" and task.key is not None:
            self.shared[task.key] = "done" if ok else "failed"
        self._settle(task.subject)

    def again(self, task: Task) -> None:
        """A task was lost with its worker, and is to be begun anew."""
        task.subject.running -= 1
        if task.kind == "train" and task.key is not None:
            self.recipes[task.key] = "todo"
        elif task.kind == "share" and task.key is not None:
            self.shared[task.key] = "todo"
        elif task.kind == "open":
            task.subject.state = "closed"
            self._unopened.appendleft(task.subject)
        elif task.trial is not None and task.kind in ("trial", "measure"):
            task.subject.trials.append(task.trial)

    def opened(self, subject: Subject, trials: Iterable[StudyTrial], *, survey: bool) -> None:
        """A subject is open; these of its trials are to be run."""
        subject.trials = deque(trials)
        subject.surveyed = not survey
        subject.state = "open"
        if subject not in self._opened:
            self._opened.append(subject)
        self._settle(subject)

    def surveyed(self, subject: Subject, needs: dict[str, list[str]], what: dict[str, str]) -> None:
        """It is known which shared work a subject's trials need."""
        subject.needs, subject.surveyed = needs, True
        for keys in needs.values():
            for key in keys:
                self.shared.setdefault(key, "todo")
        self.what.update(what)

    def fail(self, subject: Subject) -> list[StudyTrial]:
        """A subject can't be opened; its trials are given up and returned."""
        given_up, subject.trials = list(subject.trials), deque()
        subject.state = "failed"
        return given_up

    def blocked(self, subject: Subject) -> list[tuple[StudyTrial, str]]:
        """Trials that shared work failed for, taken from the subject: (trial, key of the work)."""
        lost = []
        for trial in list(subject.trials):
            failed = [key for key in subject.needs.get(trial.id, ()) if self.shared.get(key) == "failed"]
            if failed:
                subject.trials.remove(trial)
                lost.append((trial, failed[0]))
        self._settle(subject)
        return lost

    def waiting(self) -> Iterable[Subject]:
        """Subjects that are not opened yet."""
        return (subject for subject in self.subjects if subject.state in ("closed", "opening"))

    def _settle(self, subject: Subject) -> None:
        if subject.state == "open" and not subject.trials and not subject.running:
            subject.state = "done"
            if subject in self._opened:
                self._opened.remove(subject)

    def _of(self, subject: Subject) -> Task | None:
        """A task of an open subject."""
        if subject.state != "open":
            return None
        if not subject.surveyed:
            if subject.running:
                return None
            return Task("survey", subject)
        for trial in subject.trials:
            if all(self.shared.get(key) == "done" for key in subject.needs.get(trial.id, ())):
                return Task("measure" if trial.id in self._remeasured else "trial", subject, trial)
        for trial in subject.trials:
            for key in subject.needs.get(trial.id, ()):
                if self.shared.get(key) == "todo":
                    return Task("share", subject, trial, key)
        return None

    def _to_open(self) -> Task | None:
        for _ in range(len(self._unopened)):
            subject = self._unopened.popleft()
            if subject.state != "closed":
                continue
            recipe = subject.plan.train_key
            if recipe is None or self.recipes[recipe] == "done":
                return Task("open", subject)
            self._unopened.append(subject)
        return None

    def _to_train(self) -> Task | None:
        for subject in self._unopened:
            recipe = subject.plan.train_key
            if subject.state == "closed" and recipe is not None and self.recipes[recipe] == "todo":
                return Task("train", subject, key=recipe)
        return None

    def _to_help(self) -> Task | None:
        """A task of a subject that other workers hold: of the one with most to do."""
        for subject in sorted(self._opened, key=lambda subject: -len(subject.trials)):
            if subject.divisible or not subject.workers:
                task = self._of(subject)
                if task is not None:
                    return task
        return None
