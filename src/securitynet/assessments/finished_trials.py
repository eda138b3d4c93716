"""Finished trials in the cache: an assessment into another folder finds what an earlier one has computed."""

from __future__ import annotations

from pathlib import Path

from securitynet.assessments.run_trial import Trial
from securitynet.assessments.trial_plan import PlannedTrial
from securitynet.models.targets.target import Target
from securitynet.results.store import TrialStore


class FinishedTrials:
    """Copies of the files of finished trials, by their ids, which hold all that decides a result.

    Methods of plug-ins are left out: their code changes while their authors try it, and only its author raises a
    `Method.version`. So are targets whose checksum holds for this process only.

    Args:
        cache: The cache folder; its folder ``trials`` holds the files.
        target: The target of the trials.
    """

    def __init__(self, cache: Path, target: Target) -> None:
        self._store = None if target.backend.within_process else TrialStore(cache)

    def fetch(self, planned: PlannedTrial, store: TrialStore) -> bool:
        """Copy the files of a trial into a store, if there are any; return whether that was done.

        Whether they fit is for `securitynet.assessments.run_trial.reuse` to decide, as with any others.
        """
        found = None if self._store is None or not _is_ours(planned) else self._store.load(planned.spec.id)
        arrays = None if found is None or self._store is None else self._store.load_arrays(found)
        if found is None or arrays is None:
            return False
        store.save(found, arrays)
        return True

    def keep(self, planned: PlannedTrial, trial: Trial, store: TrialStore) -> None:
        """Copy a finished trial from a store into the cache; others are not kept."""
        if self._store is None or not _is_ours(planned) or trial.result.status != "ok":
            return
        arrays = store.load_arrays(trial.result)
        if arrays is not None:
            self._store.save(trial.result, arrays)


def _is_ours(planned: PlannedTrial) -> bool:
    return type(planned.method).__module__.startswith("securitynet.")
