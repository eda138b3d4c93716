"""What the report on a study says about its trials as a whole, gathered while they are read once, one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from securitynet.records import TrialResult

_PICTURED = 10
"""Trials of each method that are searched for pictures."""


@dataclass
class TrialsSummary:
    """Counts and extremes over the trials of a study.

    Attributes:
        statuses: Status -> number of trials.
        methods: Full names of the methods.
        queries: Images queried, repeats included.
        seconds: Time in all trials.
        first: Time at which the first trial ended; empty if there is none.
        last: That of the last one.
        seeds: Seeds of the trials that are ok.
        versions: Versions of this package that made those; None where one does not say.
        unresolved: Measurements without a value.
        environments: Package or machine property -> its values.
        skipped: (method, reason) -> number of trials.
        failed: The trials that failed.
        pictured: The first trials of each method that are ok.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    methods: set[str] = field(default_factory=set)
    queries: int = 0
    seconds: float = 0.0
    first: str = ""
    last: str = ""
    seeds: set[int] = field(default_factory=set)
    versions: set[str | None] = field(default_factory=set)
    unresolved: int = 0
    environments: dict[str, set[str]] = field(default_factory=dict)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: list[TrialResult] = field(default_factory=list)
    pictured: list[TrialResult] = field(default_factory=list)
    _of_method: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Number of trials."""
        return self.statuses.total()

    def observe(self, trials: Iterable[TrialResult]) -> Iterator[TrialResult]:
        """Pass trials on, and count them."""
        for trial in trials:
            self._add(trial)
            yield trial

    def _add(self, trial: TrialResult) -> None:
        method = trial.spec.method
        self.statuses[trial.status] += 1
        self.methods.add(method)
        self.queries += trial.queries.total
        self.seconds += sum(trial.seconds.values())
        self.first = min(self.first or trial.finished, trial.finished)
        self.last = max(self.last, trial.finished)
        self.unresolved += sum(measurement.value is None for measurement in trial.measurements)
        for name, value in trial.environment.items():
            self.environments.setdefault(name, set()).add(value)
        if trial.status == "ok":
            self.seeds.add(trial.spec.seed)
            self.versions.add(trial.environment.get("securitynet"))
            self._of_method[method] += 1
            if self._of_method[method] <= _PICTURED:
                self.pictured.append(trial)
        elif trial.status == "failed":
            self.failed.append(trial)
        else:
            self.skipped[method, trial.reason or ""] += 1
