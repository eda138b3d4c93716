"""`StudyRunConfig` and `run_study`: running a study file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from securitynet.assessments.config import Commas
from securitynet.errors import ConfigurationError, MissingExtra
from securitynet.files import check_writable, find_cache_folder, find_data_folder, hash_stably
from securitynet.results.excluded_entries import describe_excluded, write_excluded
from securitynet.results.root import Root, open_root
from securitynet.studies.definition.file import RunSettings, StudyConfig, read_study
from securitynet.studies.definition.file_digests import FileDigests
from securitynet.studies.definition.targets import expand_targets
from securitynet.studies.execution import finished_marker
from securitynet.studies.execution import lock as study_lock
from securitynet.studies.execution.status import Status

if TYPE_CHECKING:
    from securitynet.studies.execution.executors.base import Executor, ExecutorConfig


class StudyRunConfig(RunSettings):
    """The configuration of ``study run``: a study file and the options of the run."""

    study: Path = Field(description="Study file (TOML).")
    out: str | None = Field(
        default=None, description="Folder or URL for the results. Default: that of the file, else the data folder."
    )
    db: str | None = Field(default=None, description="Database of the index. Default: index.sqlite beside the results.")
    cache: Path | None = Field(default=None, description="Folder for what can be recomputed ($SECURITYNET_CACHE).")
    trust: Annotated[tuple[str, ...], Commas] = Field(
        default=(),
        description="Entries of the catalog (id or key) and references, separated by commas, that may run code, read "
        "files and query addresses although you did not type them.",
    )
    retry_failed: bool = Field(default=False, description="Retry failed trials, and targets that could not be opened.")
    refresh: bool = Field(default=False, description="Run trials of other versions of securitynet again.")

    def settings(self, study: StudyConfig) -> RunSettings:
        """Return the options of the run: those of the command line override those of the file."""
        given = {name: getattr(self, name) for name in self.model_fields_set & set(RunSettings.model_fields)}
        return study.run.model_copy(update=given)


@dataclass(frozen=True)
class StudyLocation:
    """The location of a study's results.

    Attributes:
        root: Root of the result files.
        state: Folder on this machine for lock, logs and status.
        index: URL or path of the index.
    """

    root: Root
    state: Path
    index: str


def locate_results(out: str | Path, db: str | None = None) -> StudyLocation:
    """Return the location of the results in this folder or at this URL."""
    root = open_root(out)
    if root.folder is not None:
        home = root.folder
    else:
        home = find_data_folder() / "studies" / f"remote-{hash_stably(root.name, 12)}"
    return StudyLocation(root, home / "run", db or str(home / "index.sqlite"))


def choose_results_root(study: StudyConfig, base: Path, out: str | None = None) -> str:
    """Return the folder or URL of a study's results.

    Args:
        study: The study.
        base: Folder of the study file.
        out: Folder or URL given by the user, if any.
    """
    if out is not None:
        return out
    if study.out is None:
        return str(find_data_folder() / "studies" / study.name)
    return study.out if "://" in study.out else str((base / Path(study.out).expanduser()).resolve())


def find_results(what: str, out: str | None = None, db: str | None = None) -> StudyLocation:
    """Locate the results that a user names by a study file, a folder or a URL.

    Args:
        what: Study file, folder or URL.
        out: Folder or URL of the results, if ``what`` is a study file.
        db: URL or path of the index, if it is not beside the results.

    Raises:
        ConfigurationError: If there are no results.
    """
    if what.endswith(".toml") and Path(what).is_file():
        path = Path(what)
        location = locate_results(choose_results_root(read_study(path), path.absolute().parent, out), db)
    else:
        location = locate_results(what, db)
    if location.root.folder is not None and not location.root.folder.is_dir():
        raise ConfigurationError(
            f"There are no results at {location.root.folder}.", hint="Run the study first, or name a folder of results."
        )
    return location


def run_study(
    config: StudyRunConfig,
    *,
    on_status: Callable[[Status], None] | None = None,
    note: Callable[[str], None] = print,
) -> tuple[Status, StudyLocation]:
    """Run all pending trials of a study.

    Args:
        config: The study file and the options of the run.
        on_status: Called with the status a few times a second.
        note: Called with messages for the user.

    Returns:
        The final status, and the location of the results.

    Raises:
        SecurityNetError: If something in the file is invalid, another runner is working, or nothing can be written.
    """
    cache = (config.cache or find_cache_folder()).absolute()
    study, base = read_study(config.study), config.study.absolute().parent
    digests = FileDigests(cache)
    expanded = expand_targets(study, base, digests, config.trust)
    for line in describe_excluded(expanded.excluded):
        note(line)
    location = locate_results(choose_results_root(study, base, config.out), config.db)
    check_writable(location.state)
    check_writable(cache)

    def compute_digest() -> str:
        options = {"retry_failed": config.retry_failed, "refresh": config.refresh}
        return finished_marker.compute_digest(study, expanded.targets, location.root, options)

    with study_lock.hold_study_lock(location.state, location.root, note):
        write_excluded(location.root, expanded.excluded)
        earlier = finished_marker.read(location.state, compute_digest())
    if earlier is not None and not (config.retry_failed and earlier.failed):
        return earlier, location

    from securitynet.studies.definition.plan import expand
    from securitynet.studies.execution.run_options import RunOptions
    from securitynet.studies.execution.runner import Runner

    plan = expand(study, base, config.study.read_text(encoding="utf-8"), digests, expanded)
    settings = config.settings(study)
    options = RunOptions(
        settings, cache, location.state, location.index, retry_failed=config.retry_failed, refresh=config.refresh
    )
    runner = Runner(plan, location.root, options, choose_executor(settings), on_status, note)
    status = runner.run()
    if status.state == "finished" and not status.waiting:
        finished_marker.write_marker(location.state, compute_digest())
    return status, location


def choose_executor(settings: RunSettings) -> Callable[[ExecutorConfig], Executor]:
    """Return the class of the requested executor.

    Raises:
        MissingExtra: If Ray is requested and not installed.
    """
    if settings.executor == "local":
        from securitynet.studies.execution.executors.local import LocalExecutor

        return LocalExecutor
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingExtra("ray", "ray", "The ray executor") from error
    from securitynet.studies.execution.executors.ray import RayExecutor

    return RayExecutor
