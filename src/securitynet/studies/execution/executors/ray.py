"""`RayExecutor`: workers on a Ray cluster. Ray decides on which machine a worker runs, and how many fit.

A worker is an actor, so that its target stays open between tasks. Tasks and outcomes are small JSON texts; arrays and
weights are exchanged through the root of the results, never through Ray. The root can be a URL, so that no shared disk
is needed; if it is a folder, every machine must see it, which is checked.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import Any

import ray
import ray.exceptions
from typing_extensions import override

from securitynet.errors import ConfigurationError
from securitynet.idle_threads import limit_idle_loops
from securitynet.results.root import Root
from securitynet.studies.execution.executors.base import (
    Event,
    Executor,
    ExecutorConfig,
    TaskCompletion,
    TaskProgress,
    WorkerDeath,
)
from securitynet.studies.execution.task_records import TaskOutcome, WorkerConfig, WorkerPlacement, WorkerTask
from securitynet.studies.execution.term import TERM, check_term
from securitynet.studies.execution.worker_tasks import BEGAN

_LOST_MACHINE = ("node has died", "node was terminated", "node is dead", "node failure", "the node")


class RayWorker:
    """An actor with a `TaskRunner`; one thread runs tasks and another reports progress.

    All messages are JSON texts, so that nothing depends on Ray's serialisation.

    Args:
        text: A `WorkerConfig` as JSON.
    """

    def __init__(self, text: str) -> None:
        config = WorkerConfig.model_validate_json(text)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(config.placement.threads)
        limit_idle_loops()
        import torch

        from securitynet.files import find_cache_folder
        from securitynet.memory import keep_freed_memory
        from securitynet.results.root import open_root
        from securitynet.studies.execution.worker_tasks import TaskRunner

        keep_freed_memory()
        torch.set_num_threads(config.placement.threads)
        assert config.term is not None  # the runner has just written its mark
        check_term_is_seen(open_root(config.root), config.term)
        with contextlib.suppress(OSError):
            config.cache.mkdir(parents=True, exist_ok=True)
        if not os.access(config.cache, os.W_OK):  # a machine other than the runner's
            config = config.model_copy(update={"cache": find_cache_folder()})
        self._runner = TaskRunner(config)
        gc.freeze()
        self._progress: tuple[str, int, int] = ("", 0, 0)
        self._began = False

    def run(self, text: str) -> str:
        """Run a `WorkerTask` given as JSON, and return the `TaskOutcome` as JSON."""
        self._progress, self._began = ("", 0, 0), False
        return self._runner.run(WorkerTask.model_validate_json(text), self._report_progress).model_dump_json()

    def get_progress(self) -> tuple[bool, str, int, int]:
        """Return whether the trial itself has begun, and the progress of the current phase."""
        return (self._began, *self._progress)

    def _report_progress(self, what: str, done: int, total: int) -> None:
        if what == BEGAN:
            self._began = True
        else:
            self._progress = what, int(done), int(total)


def check_term_is_seen(root: Root, term: str) -> None:
    """Raise `ConfigurationError` unless this machine sees the mark that the runner has just written to the root."""
    if not root.exists(TERM):
        raise ConfigurationError(
            f"A machine of the cluster does not see {root.name}.",
            hint="Give --out a URL that all machines reach (s3://..., gs://...), or a folder on a shared disk.",
        )
    check_term(root, term)


class RayExecutor(Executor):
    """Runs tasks in actors on a Ray cluster; see the module.

    Args:
        config: Number, configuration and resources of the workers.
    """

    def __init__(self, config: ExecutorConfig) -> None:
        settings = config.settings
        self._ours = not ray.is_initialized()
        # Ray reports every dead worker on stdout, which is reserved for results.
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
        placement = WorkerPlacement(
            device="cuda" if self._gpus else ("cpu" if settings.device == "auto" else settings.device),
            threads=settings.threads or max(1, int(self._cpus)),
        )
        self._worker_config = config.worker.model_copy(update={"placement": placement}).model_dump_json()
        self._actors: dict[int, Any] = {}
        self._tasks: dict[Any, int] = {}
        self._requests: dict[Any, int] = {}
        self._alive: set[int] = set()
        self._began: set[int] = set()

    @override
    def submit(self, slot: int, task: WorkerTask) -> None:
        if slot not in self._actors:
            options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_concurrency": 2, "max_restarts": 0}
            self._actors[slot] = ray.remote(RayWorker).options(**options).remote(self._worker_config)
        self._began.discard(slot)
        self._tasks[self._actors[slot].run.remote(task.model_dump_json())] = slot
        self._request_progress(slot)

    @override
    def wait(self, seconds: float) -> list[Event]:
        if not self._tasks:
            return []
        done, _ = ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        events: list[Event] = []
        for reference in done:
            slot = self._tasks.pop(reference)
            try:
                outcome = TaskOutcome.model_validate_json(ray.get(reference))
            except ray.exceptions.RayError as error:
                events.append(self._explain_death(slot, error))
            else:
                self._alive.add(slot)
                events.append(TaskCompletion(slot, outcome))
        return [*self._collect_progress(), *events]

    @override
    def kill(self, slot: int) -> None:
        actor = self._actors.pop(slot, None)
        self._forget(slot)
        if actor is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)

    @override
    def close(self) -> None:
        for slot in list(self._actors):
            self.kill(slot)
        if self._ours:
            ray.shutdown()
        self._quiet.__exit__(None, None, None)

    def _request_progress(self, slot: int) -> None:
        if slot in self._actors and slot not in self._requests.values():
            self._requests[self._actors[slot].get_progress.remote()] = slot

    def _collect_progress(self) -> list[Event]:
        if not self._requests:
            return []
        answered, _ = ray.wait(list(self._requests), num_returns=len(self._requests), timeout=0)
        events: list[Event] = []
        for reference in answered:
            slot = self._requests.pop(reference)
            with contextlib.suppress(ray.exceptions.RayError):  # the reference of the task reports the error
                began, what, done, total = ray.get(reference)
                self._alive.add(slot)
                if began and slot not in self._began:
                    self._began.add(slot)
                    events.append(TaskProgress(slot, BEGAN, 0, 0))
                elif total:
                    events.append(TaskProgress(slot, what, done, total))
            if slot in self._tasks.values():
                self._request_progress(slot)
        return events

    def _explain_death(self, slot: int, error: Exception) -> WorkerDeath:
        began = slot in self._alive
        self._actors.pop(slot, None)
        self._forget(slot)
        text = str(error)
        cause = getattr(error, "cause", None)
        if isinstance(cause, ConfigurationError):  # raised if the machine does not see the results
            raise cause
        blameless = any(mark in text.lower() for mark in _LOST_MACHINE)
        why = "its machine went away" if blameless else f"Ray lost it ({type(error).__name__})"
        return WorkerDeath(slot, why, text[-4000:], began=began, blameless=blameless)

    def _forget(self, slot: int) -> None:
        self._tasks = {reference: owner for reference, owner in self._tasks.items() if owner != slot}
        self._requests = {reference: owner for reference, owner in self._requests.items() if owner != slot}
        self._alive.discard(slot)
        self._began.discard(slot)
