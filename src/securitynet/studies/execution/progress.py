"""The ledger: of a study's trials, which are there, which are to be run, and which can't be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from securitynet.assessments.environment import version
from securitynet.results.index import Index, Kept
from securitynet.results.subjects import SubjectRecord, SubjectStore
from securitynet.studies.definition.plan import StudyPlan, StudyTrial
from securitynet.studies.definition.targets import SubjectPlan


@dataclass
class Sorted:
    """The trials of one subject.

    Attributes:
        run: To be run.
        measure: Finished, but at other levels or rates than are asked for now.
        skip: That can't be run, and of which that is not on record yet.
    """

    run: list[StudyTrial] = field(default_factory=list)
    measure: list[StudyTrial] = field(default_factory=list)
    skip: list[StudyTrial] = field(default_factory=list)


@dataclass
class Counts:
    """Of all trials of a study."""

    total: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    other_version: int = 0


class Ledger:
    """What there is of a study, and what is left.

    Args:
        plan: The study.
        index: Of its results, up to date.
        retry_failed: Whether failed trials are to be run again.
        refresh: Whether those of other versions are.
        note: Told what the user should know.
    """

    def __init__(
        self,
        plan: StudyPlan,
        index: Index,
        *,
        retry_failed: bool = False,
        refresh: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.plan, self.retry_failed, self.refresh, self.note = plan, retry_failed, refresh, note
        self.kept = index.kept()
        wanted = {subject.key for subject in plan.subjects}
        self.records: dict[str, SubjectRecord] = {}
        self._stale: list[str] = []
        declared = [subject.declared() for subject in plan.subjects]
        for record in index.subjects():
            if record.key in wanted:
                self.records[record.key] = record
            elif record.status == "failed" and record.declared in declared:
                self._stale.append(record.key)
        self._counts: dict[str, Counter[str]] = {}
        self._waiting: dict[str, Counter[str]] = {}
        self._claimed: dict[str, str] = {}
        self._state: dict[str, tuple[str, str]] = {}
        for subject in plan.subjects:
            if subject.key not in self.records:
                self._expect(subject)
            elif self.records[subject.key].status == "failed":
                if retry_failed:
                    self._expect(subject)
                else:
                    self.subject_failed(subject)

    def drop_stale(self, store: SubjectStore) -> None:
        """Delete the records of failures to open what has been mended since: the file that was missing is there."""
        for key in self._stale:
            store.files.remove(store.name(key))

    def sort(self, subject: SubjectPlan, record: SubjectRecord) -> Sorted:
        """What is to be done of a subject that has been opened.

        Trials that two subjects share (two names of the same weights) belong to the first.
        """
        assert record.means is not None
        found, counts, waiting = Sorted(), Counter[str](), Counter[str]()
        for trial in self.plan.trials(subject, record.means):
            if self._claimed.setdefault(trial.id, subject.key) != subject.key:
                continue
            kept = self.kept.get(trial.id)
            if trial.obstacle is not None and (kept is None or kept.status != "ok"):
                counts["skipped"] += 1
                state = "skipped"
                if kept is None or kept.reason != trial.obstacle or kept.status != "skipped":
                    found.skip.append(trial)
            elif self._to_run(kept):
                found.run.append(trial)
                waiting[trial.plan.name] += 1
                state = "waiting"
            else:
                assert kept is not None
                state = kept.status
                counts[state] += 1
                counts["other_version"] += state == "ok" and kept.version != version()
                if state == "ok" and not self._measured(kept):
                    found.measure.append(trial)
            self._state[trial.id] = (subject.key, state)
        self._counts[subject.key], self._waiting[subject.key] = counts, waiting
        return found

    def count(self, trial: StudyTrial, status: str) -> None:
        """A trial has been finished."""
        key, before = self._state[trial.id]
        if before == "waiting":
            self._waiting[key][trial.plan.name] -= 1
        else:
            self._counts[key][before] -= 1
        self._counts[key][status] += 1
        self._state[trial.id] = (key, status)

    def subject_failed(self, subject: SubjectPlan) -> None:
        """A subject can't be opened: so many trials are lost."""
        expected = self.plan.trials(subject, self.plan.means(subject, None))
        lost = sum(trial.obstacle is None for trial in expected)
        self._counts[subject.key] = Counter(failed=lost, skipped=len(expected) - lost)
        self._waiting[subject.key] = Counter()

    def counts(self) -> Counts:
        """Of all trials."""
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        waiting = sum(self.waiting().values())
        ok, failed, skipped = total["ok"], total["failed"], total["skipped"]
        return Counts(ok + failed + skipped + waiting, ok, failed, skipped, total["other_version"])

    def waiting(self) -> Counter[str]:
        """Method -> trials to be run."""
        total: Counter[str] = Counter()
        for waiting in self._waiting.values():
            total.update(waiting)
        return total

    def _expect(self, subject: SubjectPlan) -> None:
        counts, waiting = Counter[str](), Counter[str]()
        for trial in self.plan.trials(subject, self.plan.means(subject, None)):
            if trial.obstacle is None:
                waiting[trial.plan.name] += 1
            else:
                counts["skipped"] += 1
        self._counts[subject.key], self._waiting[subject.key] = counts, waiting

    def _to_run(self, kept: Kept | None) -> bool:
        if kept is None:
            return True
        if kept.status == "skipped" and kept.version is None:
            return True  # something stood in its way that no longer does; it has not been tried
        if kept.status == "failed":
            return self.retry_failed
        return self.refresh and kept.version != version()

    def _measured(self, kept: Kept) -> bool:
        """Whether a trial was measured as is asked now."""
        measures = self.plan.study.measures
        if kept.level is not None and kept.level != measures.level:
            return False
        return not kept.rates or kept.rates == frozenset(f"{rate:g}" for rate in measures.fprs)
