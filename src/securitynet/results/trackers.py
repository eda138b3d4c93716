"""Logs results to experiment trackers: MLflow, and Weights & Biases.

A result becomes one run. Measurements are its metrics, with the ends of their intervals beside them
(``membership/loss.auc``, ``membership/loss.auc.low``, ``….high``), the configuration its parameters, and grades and
digests its tags. Neither tracker is imported unless it is asked for, and neither is told the names of the user, of the
machine or of the running program, which both would otherwise collect.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from securitynet.errors import ConfigurationError, MissingExtra, SecurityNetError
from securitynet.results.document import ResultDocument

EXPERIMENT = "securitynet"
"""The MLflow experiment, unless the environment variable MLFLOW_EXPERIMENT_NAME says otherwise."""

_MOST_METRICS = 500
"""Metrics in one request; MLflow takes 1,000."""

_LONGEST = 500
"""Characters of a parameter, which every version of MLflow takes."""

_OFFLINE = ("offline", "disabled", "dryrun")


class TrackerError(SecurityNetError):
    """A tracker that does not take a result."""


def check_trackers(mlflow: str | None, wandb: str | None) -> None:
    """Report before long work that a tracker is not installed, cannot be reached, or needs a login.

    Args:
        mlflow: The tracking URI of MLflow; None if nothing is logged there.
        wandb: PROJECT or ENTITY/PROJECT; None if nothing is logged there.

    Raises:
        MissingExtra: If the tracker's package is not installed.
        ConfigurationError: If the project's name cannot be one, or nobody is logged in.
        TrackerError: If MLflow does not answer.
    """
    if mlflow is not None:
        _open_mlflow(mlflow)
    if wandb is not None:
        _split_project(wandb)
        if importlib.util.find_spec("wandb") is None:
            raise MissingExtra("wandb", "wandb", "Logging to Weights & Biases")
        if os.environ.get("WANDB_MODE") not in _OFFLINE:
            import wandb as package

            if not package.login(prompt=False):
                raise ConfigurationError(
                    "Nobody is logged in to Weights & Biases.",
                    hint="Run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline to write a folder only.",
                )


def name_metric(measurement: str) -> str:
    """The name of a measurement as both trackers take it and group it: ``membership/loss.tpr_at_fpr_0.001``."""
    family, _, rest = measurement.partition(".")
    return f"{family}/{rest}".replace("@", "_at_").replace("=", "_")


def list_metrics(document: ResultDocument) -> dict[str, float]:
    """All values of a result with the ends of their intervals, by the names that trackers take."""
    metrics: dict[str, float] = {}
    for measurement in document.measurements:
        name = name_metric(measurement.name)
        parts = ((name, measurement.value), (f"{name}.low", measurement.low), (f"{name}.high", measurement.high))
        if measurement.value is not None:
            metrics |= {part: float(value) for part, value in parts if value is not None}
    return metrics


def list_parameters(document: ResultDocument) -> dict[str, str]:
    """The configuration, as text; empty settings are left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in document.settings.items()
        if value not in ((), [], None, "")
    }


def list_tags(document: ResultDocument) -> dict[str, str]:
    """Grades, and the digests by which a result is recognised."""
    tags = {f"grade.{grade.family}": grade.grade for grade in document.grades}
    return tags | {
        "target.checksum": document.target.checksum,
        "dataset.fingerprint": document.dataset.fingerprint,
        "dataset.membership": document.dataset.membership,
        "securitynet.version": document.environment.get("securitynet", ""),
    }


def log_to_mlflow(document: ResultDocument, uri: str, files: Sequence[Path] = ()) -> str:
    """Log a result as a run of MLflow.

    Args:
        document: The result.
        uri: The tracking URI: a server, ``sqlite:///file.db``, or a folder where MLflow still allows it.
        files: Files that become the run's artifacts.

    Returns:
        The run's id.

    Raises:
        MissingExtra: If MLflow is not installed.
        TrackerError: If the tracker does not take the run.
    """
    client, experiment = _open_mlflow(uri)
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    metrics = [Metric(name, value, now, 0) for name, value in list_metrics(document).items()]
    params = [Param(name, value[:_LONGEST]) for name, value in list_parameters(document).items()]
    tags = [RunTag(name, value) for name, value in list_tags(document).items()]
    try:
        run = client.create_run(experiment, run_name=document.target.reference)
        number = str(run.info.run_id)
        client.log_batch(number, params=params, tags=tags)
        for start in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(number, metrics=metrics[start : start + _MOST_METRICS])
        for file in files:
            client.log_artifact(number, str(file))
        client.set_terminated(number)
    except (MlflowException, OSError) as error:
        raise TrackerError(f"MLflow does not take the result: {error}.", hint=_RETRY) from error
    return number


def log_to_wandb(document: ResultDocument, project: str, folder: Path, files: Sequence[Path] = ()) -> str:
    """Log a result as a run of Weights & Biases; with ``WANDB_MODE=offline`` it is only written to a folder.

    Args:
        document: The result.
        project: PROJECT or ENTITY/PROJECT.
        folder: Folder in which the tracker's own folder ``wandb`` is written.
        files: Files that are saved with the run.

    Returns:
        The run's id.

    Raises:
        MissingExtra: If wandb is not installed.
        TrackerError: If the tracker does not take the run.
    """
    check_trackers(None, project)
    import wandb

    entity, name = _split_project(project)
    # Without these, wandb records host, user, working folder, command line, installed packages and the repository.
    settings = wandb.Settings(
        console="off", silent=True, save_code=False, disable_code=True, disable_git=True, disable_job_creation=True,
        host="", username="", email="", program="securitynet", root_dir=str(folder), x_disable_meta=True,
        x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
    try:
        run = wandb.init(
            entity=entity, project=name, name=document.target.reference, config=list_parameters(document),
            job_type="assessment", dir=str(folder), settings=settings,
        )  # fmt: skip
        run.summary.update({**list_metrics(document), **list_tags(document)})
        for file in files:
            shutil.copy(file, run.dir)
            run.save(str(Path(run.dir) / file.name), base_path=run.dir, policy="now")
        logs = Path(run.dir).parent / "logs"
        run.finish()
    except (wandb.Error, OSError) as error:
        raise TrackerError(f"Weights & Biases does not take the result: {error}.", hint=_RETRY) from error
    shutil.rmtree(logs, ignore_errors=True)  # its log of itself, which names folders of this machine
    return str(run.id)


def log_result(
    document: ResultDocument,
    folder: Path,
    mlflow: str | None,
    wandb: str | None,
    files: Sequence[str] = ("result.json", "report.html"),
) -> None:
    """Log a result to the trackers that were asked for.

    Args:
        document: The result.
        folder: Its folder.
        mlflow: The tracking URI of MLflow; None if nothing is logged there.
        wandb: PROJECT or ENTITY/PROJECT; None if nothing is logged there.
        files: Files of the folder that are logged too, where they exist.

    Raises:
        SecurityNetError: If a tracker does not take it.
    """
    present = [folder / name for name in files if (folder / name).is_file()]
    if mlflow is not None:
        log_to_mlflow(document, mlflow, present)
    if wandb is not None:
        log_to_wandb(document, wandb, folder, present)


_RETRY = (
    "The result itself is written. Log it later with `securitynet export FOLDER --mlflow URI` or `--wandb PROJECT`."
)


def _open_mlflow(uri: str) -> tuple[Any, str]:
    """A client of MLflow, and the id of the experiment.

    Raises:
        MissingExtra: If MLflow is not installed.
        TrackerError: If it does not answer.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise MissingExtra("mlflow", "mlflow", "Logging to MLflow")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    try:
        client = MlflowClient(tracking_uri=uri)
        present = client.get_experiment_by_name(name)
        experiment = present.experiment_id if present is not None else client.create_experiment(name)
    except (MlflowException, OSError, ValueError, ImportError) as error:
        raise TrackerError(
            f"MLflow cannot be used at this address: {error}.",
            hint="Give the tracking URI of a server, or sqlite:///FILE.db.",
        ) from error
    return client, str(experiment)


def _split_project(project: str) -> tuple[str | None, str]:
    """Entity and project.

    Raises:
        ConfigurationError: If it is no PROJECT or ENTITY/PROJECT.
    """
    entity, _, name = project.rpartition("/")
    if not name or len(name) > 128 or any(character in "/\\#?%:" for character in f"{entity}{name}"):
        raise ConfigurationError(
            f"{project!r} is no project of Weights & Biases.", hint="Give PROJECT or ENTITY/PROJECT."
        )
    return entity or None, name
