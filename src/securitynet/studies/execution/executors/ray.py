"""`RayExecutor`: workers on a Ray cluster. Ray decides on which machine a worker runs, and how many fit; we do not.

A worker is an actor, so that what it has opened stays open. Jobs and outcomes are small JSON; arrays and weights go to
the place of the results and come from there, never through Ray. So that workers need no shared disk, that place
can be a URL; where it is a folder, each machine must see it, which is checked.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from securitynet.errors import ConfigurationError
from securitynet.studies.execution.executors.base import Bench, Died, Event, Executor, Finished, Progressed
from securitynet.studies.execution.worker_tasks import BEGAN, Job, Outcome, check_term

_LOST_MACHINE = ("node has died", "node was terminated", "node is dead", "node failure", "the node")


class Worker:
    """An actor: a `Workbench`, and what it is at. Two threads: one works, one answers how far it is."""

    def __init__(self, hello: dict[str, Any]) -> None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(hello["threads"])
        import torch

        from securitynet.files import cache_folder
        from securitynet.results.root import open_root
        from securitynet.studies.execution.worker_tasks import Workbench

        torch.set_num_threads(hello["threads"])
        root = open_root(hello["root"])
        check_term_is_seen(root, hello["term"])
        cache = Path(hello["cache"])
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK):  # another machine than the runner's
            cache = cache_folder()
        self._bench = Workbench(root, cache, hello["device"], hello["level"], tuple(hello["fprs"]), hello["term"])
        gc.freeze()
        self._at: tuple[str, int, int] = ("", 0, 0)
        self._began = False

    def do(self, job: Job) -> Outcome:
        """Do a job."""
        self._at, self._began = ("", 0, 0), False
        return self._bench.do(job, self._progress)

    def how_far(self) -> tuple[bool, str, int, int]:
        """Whether the trial itself has begun, and how far what is at work."""
        return (self._began, *self._at)

    def _progress(self, what: str, done: int, total: int) -> None:
        if what == BEGAN:
            self._began = True
        else:
            self._at = what, int(done), int(total)


def check_term_is_seen(root: Any, term: str) -> None:
    """Raise `ConfigurationError` unless this machine sees the place where the runner has just left its mark."""
    if not root.exists("term"):
        raise ConfigurationError(
            f"A machine of the cluster does not see {root.name}.",
            hint="Give --out a URL that all machines reach (s3://..., gs://...), or a folder on a shared disk.",
        )
    check_term(root, term)


class RayExecutor(Executor):
    """Actors on a Ray cluster; see the module.

    Args:
        bench: What they are told.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        settings = bench.settings
        self._ours = not ray.is_initialized()
        # Ray tells of every worker that dies on stdout, which is for results.
        self._quiet = contextlib.redirect_stdout(sys.stderr)
        self._quiet.__enter__()
        if self._ours:
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if settings.address is None:
                options |= {"include_dashboard": False}
            try:
                ray.init(address=settings.address, **options)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigurationError(
                    f"There is no Ray cluster at {settings.address}: {error}.",
                    hint="Start one with `ray start --head`.",
                ) from error
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self._cpus = settings.cpus_per_worker or float(settings.threads or 1)
        self._gpus = settings.gpus_per_worker
        if self._gpus is None:
            self._gpus = 1.0 if resources.get("GPU") and settings.device in ("auto", "cuda") else 0.0
        fit = resources.get("CPU", 1.0) / self._cpus
        if self._gpus:
            fit = min(fit, resources.get("GPU", 0.0) / self._gpus)
        if fit < 1:
            raise ConfigurationError(
                f"No worker with {self._cpus:g} CPUs and {self._gpus:g} GPUs fits the cluster, "
                f"which has {resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}.",
                hint="Lower --cpus-per-worker or --gpus-per-worker.",
            )
        self.slots = settings.workers or int(fit)
        self._hello = {
            "root": bench.root,
            "cache": str(bench.cache),
            "device": "cuda" if self._gpus else ("cpu" if settings.device == "auto" else settings.device),
            "level": bench.level,
            "fprs": list(bench.fprs),
            "threads": settings.threads or max(1, int(self._cpus)),
            "term": bench.term,
        }
        self._actors: dict[int, Any] = {}
        self._jobs: dict[Any, int] = {}
        self._asked: dict[Any, int] = {}
        self._alive: set[int] = set()
        self._began: set[int] = set()

    def submit(self, slot: int, job: Job) -> None:
        """See `Executor.submit`."""
        if slot not in self._actors:
            options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_concurrency": 2, "max_restarts": 0}
            self._actors[slot] = ray.remote(Worker).options(**options).remote(self._hello)
        self._began.discard(slot)
        self._jobs[self._actors[slot].do.remote(job)] = slot
        self._ask(slot)

    def wait(self, seconds: float) -> list[Event]:
        """See `Executor.wait`."""
        if not self._jobs:
            return []
        done, _ = ray.wait(list(self._jobs), num_returns=1, timeout=seconds)
        events: list[Event] = []
        for reference in done:
            slot = self._jobs.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayError as error:
                events.append(self._died(slot, error))
            else:
                self._alive.add(slot)
                events.append(Finished(slot, outcome))
        return [*self._progress(), *events]

    def kill(self, slot: int) -> None:
        """See `Executor.kill`."""
        actor = self._actors.pop(slot, None)
        self._forget(slot)
        if actor is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)

    def close(self) -> None:
        """See `Executor.close`."""
        for slot in list(self._actors):
            self.kill(slot)
        if self._ours:
            ray.shutdown()
        self._quiet.__exit__(None, None, None)

    def _ask(self, slot: int) -> None:
        if slot in self._actors and slot not in self._asked.values():
            self._asked[self._actors[slot].how_far.remote()] = slot

    def _progress(self) -> list[Event]:
        if not self._asked:
            return []
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        events: list[Event] = []
        for reference in answered:
            slot = self._asked.pop(reference)
            with contextlib.suppress(ray.exceptions.RayError):  # the job's own reference tells of it
                began, what, done, total = ray.get(reference)
                self._alive.add(slot)
                if began and slot not in self._began:
                    self._began.add(slot)
                    events.append(Progressed(slot, BEGAN, 0, 0))
                elif total:
                    events.append(Progressed(slot, what, done, total))
            if slot in self._jobs.values():
                self._ask(slot)
        return events

    def _died(self, slot: int, error: Exception) -> Died:
        began = slot in self._alive
        self._actors.pop(slot, None)
        self._forget(slot)
        text = str(error)
        cause = getattr(error, "cause", None)
        if isinstance(cause, ConfigurationError):  # the machine does not see the results
            raise cause
        blameless = any(mark in text.lower() for mark in _LOST_MACHINE)
        why = "its machine went away" if blameless else f"Ray lost it ({type(error).__name__})"
        return Died(slot, why, text[-4000:], began=began, blameless=blameless)

    def _forget(self, slot: int) -> None:
        self._jobs = {reference: owner for reference, owner in self._jobs.items() if owner != slot}
        self._asked = {reference: owner for reference, owner in self._asked.items() if owner != slot}
        self._alive.discard(slot)
        self._began.discard(slot)
