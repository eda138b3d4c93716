"""The progress of a study: its finished trials, its pending trials, and the trials that cannot be run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from securitynet.assessments.environment import read_version
from securitynet.results.index import Index, TrialState
from securitynet.results.study_targets import StudyTargetRecord, StudyTargetStore
from securitynet.studies.definition.plan import StudyPlan, StudyTrial
from securitynet.studies.definition.targets import TargetPlan

_CHECKED = {
    "answers": "outputs, which vary for the same image",
    "chance": "accuracy, which is hardly better than chance",
    "sign": "scores, whose sign is reversed",
    "class order": "class order, which is not the dataset's",
    "accuracy": "accuracy, which is not the stated one",
    "checksum": "weights, which are not those that are stated",
}
"""What a study says about a target that it leaves out, by the check that failed."""


@dataclass
class PendingTrials:
    """The pending trials of one target.

    Attributes:
        run: Trials to run.
        recompute: Finished trials whose metrics were computed with other levels or rates than are requested now.
        skip: Trials that cannot be run and are not recorded as skipped yet.
    """

    run: list[StudyTrial] = field(default_factory=list)
    recompute: list[StudyTrial] = field(default_factory=list)
    skip: list[StudyTrial] = field(default_factory=list)


@dataclass
class Counts:
    """Numbers of the trials of a study by state.

    Attributes:
        total: All trials.
        ok: Successful trials.
        failed: Failed trials, including those whose target could not be opened.
        skipped: Trials that cannot be run.
        other_version: Successful trials of another version of this package.
    """

    total: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    other_version: int = 0


class StudyProgress:
    """The finished and the pending trials of a study.

    Args:
        plan: The study.
        index: Up-to-date index of its results.
        retry_failed: Whether to run failed trials again.
        refresh: Whether to run trials of other versions of this package again.

    Attributes:
        expected: Key of a target that has not been opened -> how many trials it will probably have of each
            (method, obstacle); the obstacle is None if there is none.
    """

    def __init__(
        self,
        plan: StudyPlan,
        index: Index,
        *,
        retry_failed: bool = False,
        refresh: bool = False,
    ) -> None:
        self.plan, self.retry_failed, self.refresh = plan, retry_failed, refresh
        self.states = index.trial_states()
        wanted = {target.key for target in plan.targets}
        self.records: dict[str, StudyTargetRecord] = {}
        self._stale: list[str] = []
        declared = [target.declared() for target in plan.targets]
        for record in index.target_records():
            if record.key in wanted:
                self.records[record.key] = record
            elif record.status == "failed" and record.declared in declared:
                self._stale.append(record.key)
        self.expected: dict[str, Counter[tuple[str, str | None]]] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._waiting: dict[str, Counter[str]] = {}
        self._claimed: dict[str, str] = {}
        self._state: dict[str, tuple[str, str]] = {}
        for target in plan.targets:
            if target.key not in self.records:
                self._expect(target)
            elif self.records[target.key].status == "failed":
                if retry_failed:
                    self._expect(target)
                else:
                    self.fail_target(target)

    def drop_stale(self, store: StudyTargetStore) -> None:
        """Delete records of targets that could not be opened and now can, such as after a missing file was added."""
        for key in self._stale:
            store.files.remove(store.name(key))

    def find_pending(self, target: TargetPlan, record: StudyTargetRecord) -> PendingTrials:
        """Return the pending trials of a target that has been opened.

        Trials that two targets share (two names of the same weights) belong to the first target.
        """
        assert record.means is not None
        pending, counts, waiting = PendingTrials(), Counter[str](), Counter[str]()
        left_out = self._explain_leaving_out(record)
        for trial in self.plan.trials(target, record.means):
            if left_out is not None:
                trial = replace(trial, obstacle=left_out)
            if self._claimed.setdefault(trial.id, target.key) != target.key:
                continue
            summary = self.states.get(trial.id)
            if trial.obstacle is not None and (summary is None or summary.status != "ok"):
                counts["skipped"] += 1
                state = "skipped"
                if summary is None or summary.reason != trial.obstacle or summary.status != "skipped":
                    pending.skip.append(trial)
            elif self._has_to_run(summary):
                pending.run.append(trial)
                waiting[trial.plan.name] += 1
                state = "waiting"
            else:
                assert summary is not None
                state = summary.status
                counts[state] += 1
                counts["other_version"] += state == "ok" and summary.version != read_version()
                if state == "ok" and not self._is_measured(summary):
                    pending.recompute.append(trial)
            self._state[trial.id] = (target.key, state)
        self._counts[target.key], self._waiting[target.key] = counts, waiting
        return pending

    def record_outcome(self, trial: StudyTrial, status: str) -> None:
        """Record that a trial has ended with this status."""
        key, before = self._state[trial.id]
        if before == "waiting":
            self._waiting[key][trial.plan.name] -= 1
        else:
            self._counts[key][before] -= 1
        self._counts[key][status] += 1
        self._state[trial.id] = (key, status)

    def fail_target(self, target: TargetPlan) -> None:
        """Record that a target cannot be opened, so that its trials count as failed."""
        expected = self.plan.trials(target, self.plan.capabilities(target, None))
        lost = sum(trial.obstacle is None for trial in expected)
        self._counts[target.key] = Counter(failed=lost, skipped=len(expected) - lost)
        self._waiting[target.key] = Counter()

    def count_all(self) -> Counts:
        """Count all trials by state."""
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        waiting = sum(self.count_waiting().values())
        ok, failed, skipped = total["ok"], total["failed"], total["skipped"]
        return Counts(ok + failed + skipped + waiting, ok, failed, skipped, total["other_version"])

    def count_waiting(self) -> Counter[str]:
        """Count the trials to run, by method."""
        total: Counter[str] = Counter()
        for waiting in self._waiting.values():
            total.update(waiting)
        return total

    def _expect(self, target: TargetPlan) -> None:
        trials = self.plan.trials(target, self.plan.capabilities(target, None))
        expected = Counter((trial.plan.name, trial.obstacle) for trial in trials)
        self._waiting[target.key] = Counter({name: n for (name, obstacle), n in expected.items() if obstacle is None})
        self._counts[target.key] = Counter(skipped=len(trials) - self._waiting[target.key].total())
        self.expected[target.key] = expected

    def _explain_leaving_out(self, record: StudyTargetRecord) -> str | None:
        """Why the study leaves out a target that was opened; None if it does not."""
        failed = sorted({check.what for check in record.checks if not check.agrees})
        if self.plan.study.on_mismatch != "skip" or not failed:
            return None
        return f"the target fails the check of its {' and '.join(_CHECKED[what] for what in failed)}"

    def _has_to_run(self, summary: TrialState | None) -> bool:
        if summary is None:
            return True
        if summary.status == "skipped" and summary.version is None:
            return True  # it was skipped for a reason that no longer applies
        if summary.status == "failed":
            return self.retry_failed
        return self.refresh and summary.version != read_version()

    def _is_measured(self, summary: TrialState) -> bool:
        """Return whether a trial was measured with the levels and rates requested now."""
        measures = self.plan.study.measures
        if summary.level is not None and summary.level != measures.level:
            return False
        return not summary.rates or summary.rates == frozenset(f"{rate:g}" for rate in measures.fprs)
