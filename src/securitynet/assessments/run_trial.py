"""Runs one trial, computes its measurements and stores its record; a failure is recorded as well."""

from __future__ import annotations

import datetime
import errno
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from securitynet.assessments import environment
from securitynet.assessments.controls import MembershipControls
from securitynet.assessments.trial_plan import PlannedTrial
from securitynet.errors import AccessDenied, SecurityNetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.loading.examination import describe_doubts
from securitynet.models.targets.target import Target
from securitynet.records import Measurement, TrialResult
from securitynet.results.store import TrialStore

logger = logging.getLogger(__name__)

ReportProgress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial with its raw output.

    Attributes:
        name: Name of the trial; see `PlannedTrial`.
        result: Content of its file.
        output: Raw output for the records that are evaluated (the file has all); None unless the trial succeeded.
        reused: Whether the trial was finished in an earlier run.
    """

    name: str
    result: TrialResult
    output: Output | None
    reused: bool = False


@dataclass(frozen=True)
class MetricOptions:
    """Options of the metrics.

    Attributes:
        level: Confidence level of the intervals, in (0, 1).
        fprs: False-positive rates at which the true-positive rate is reported.
        seed: Seed of resampling.
        controls: Records that are not evaluated, and the controls shown with membership attacks; None for neither.
    """

    level: float
    fprs: Sequence[float]
    seed: int
    controls: MembershipControls | None = None

    def restrict_output(self, output: Output) -> Output:
        """An output without the records that are not judged."""
        return output if self.controls is None else self.controls.restrict(output)

    def list_arrays(self, output: Output) -> dict[str, NDArray[Any]]:
        """The whole output as it is stored; beside membership scores, the records that are not judged."""
        arrays = output.arrays()
        if self.controls is not None and len(self.controls.left_out) and "is_member" in arrays:
            arrays["left_out"] = self.controls.left_out
        return arrays

    def measure_output(self, name: str, output: Output) -> list[Measurement]:
        """Compute the measurements of an output, as `restrict_output` leaves it, named after its trial."""
        measurements = output.measurements(level=self.level, fprs=self.fprs, seed=self.seed)
        if self.controls is not None:
            measurements += self.controls.measure(output, self.level)
        return [measurement.renamed(name) for measurement in measurements]


def skip(planned: PlannedTrial, store: TrialStore) -> Trial:
    """Record that a trial cannot be run."""
    result = TrialResult(spec=planned.spec, status="skipped", reason=planned.obstacle, finished=read_clock())
    return Trial(planned.name, store.save(result), None)


def reuse(
    planned: PlannedTrial,
    store: TrialStore,
    options: MetricOptions,
    *,
    any_version: bool = False,
    marks: tuple[str, ...] | None = None,
) -> Trial | None:
    """Return the trial if an earlier run of this version finished it, else None.

    If other levels or rates are requested than those on record, the metrics are computed again and stored.

    Args:
        planned: The trial.
        store: Trial files.
        options: Options of the metrics.
        any_version: Whether to accept a result of another version of this package.
        marks: Doubts about the target that are recorded with the result; None keeps those on record.
    """
    earlier = store.load(planned.spec.id)
    if earlier is None or earlier.status != "ok":
        return None
    if not any_version and earlier.environment.get("securitynet") != environment.read_version():
        return None
    arrays = store.load_arrays(earlier)
    if arrays is None:
        return None
    try:
        whole = planned.method.output.from_arrays(arrays)
        output = options.restrict_output(whole)
        measured = options.measure_output(planned.name, output)
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        SecurityNetError,
    ) as error:  # arrays that this method has not written
        logger.warning("The stored output of %s does not fit it; the trial runs again: %s", planned.name, error)
        return None
    marks = earlier.doubts if marks is None else marks
    if measured != list(earlier.measurements) or marks != earlier.doubts:  # other levels, rates or checks this time
        update = {"measurements": tuple(measured), "doubts": marks}
        earlier = store.save(earlier.model_copy(update=update), options.list_arrays(whole))
    return Trial(planned.name, earlier, output, reused=True)


def run_trial(
    planned: PlannedTrial,
    target: Target,
    data: TrialData,
    context: Context,
    store: TrialStore,
    options: MetricOptions,
    computed: tuple[Output, float] | None = None,
) -> Trial:
    """Run a trial and store its result; an error is recorded and does not affect other trials.

    Args:
        planned: The trial.
        target: The target.
        data: Data of the trial.
        context: Seed, cache and device.
        store: Trial files.
        options: Options of the metrics.
        computed: Its raw output and the seconds that it took, if it ran together with other trials.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    try:
        whole = computed[0] if computed else planned.method(target, data, context, planned.spec.threat_model)
        attacked = time.perf_counter()
        seconds["attack"] = computed[1] if computed else attacked - started
        output = options.restrict_output(whole)
        measured = options.measure_output(planned.name, output)
        seconds["metrics"] = time.perf_counter() - attacked
    except (Exception, SystemExit) as error:  # code of a plug-in may try to end the process
        if is_full_disk(error):  # not caused by the trial, and all following trials would fail as well
            raise
        hidden = isinstance(error, AccessDenied) and (target.interface is not None or target.head == "labels")
        logger.log(logging.DEBUG if hidden else logging.ERROR, "%s failed: %s", planned.name, error)
        reason = error.message if isinstance(error, SecurityNetError) else f"{type(error).__name__}: {error}"
        failure = TrialResult(
            spec=planned.spec,
            status="skipped" if hidden else "failed",  # the interface hides what the attack needs, as it is meant to
            reason=reason,
            traceback=None if hidden else traceback.format_exc(),
            queries=context.queries(data.dataset),
            environment=environment.describe_environment(target),
            finished=read_clock(),
        )
        return Trial(planned.name, store.save(failure), None)
    result = TrialResult(
        spec=planned.spec,
        status="ok",
        measurements=tuple(measured),
        doubts=describe_doubts(target.checks),
        queries=context.queries(data.dataset),
        seconds={phase: round(value, 4) for phase, value in seconds.items()},
        environment=environment.describe_environment(target),
        finished=read_clock(),
    )
    return Trial(planned.name, store.save(result, options.list_arrays(whole)), output)


def is_full_disk(error: BaseException) -> bool:
    """Return whether nothing can be written any more: a full disk, an exceeded quota, or a read-only file system."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def read_clock() -> str:
    """Return the current UTC time in ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def name_phase(report_progress: ReportProgress | None, what: str) -> Callable[[int, int], None] | None:
    """Return a callback for one phase of the work: called with (done, total), it reports (what, done, total)."""
    return None if report_progress is None else lambda done, total: report_progress(what, done, total)
