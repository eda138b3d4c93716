"""Results in experiment trackers: names, errors before long work, and runs of the real libraries (slow tests)."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from securitynet.assessments.comparison import read_result
from securitynet.cli.main import app
from securitynet.errors import ConfigurationError, MissingExtra
from securitynet.reports.grades import add_grades
from securitynet.results import trackers
from stored_results import N, write_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A result with files beside it, as an assessment leaves them."""
    root = tmp_path_factory.mktemp("tracked") / "report"
    random = np.random.default_rng(0)
    write_result(root, "a" * 64, random.normal(size=N), random.random(N) < 0.9)
    (root / "report.html").write_text("<p>report")
    return root


@pytest.fixture(scope="module")
def document(folder):
    return add_grades(read_result(folder).document)


def test_names_are_those_that_trackers_take(document):
    assert trackers.name_metric("membership.loss.tpr@fpr=0.001") == "membership/loss.tpr_at_fpr_0.001"
    metrics = trackers.list_metrics(document)
    assert metrics["membership/loss.auc"] == 0.6
    assert (metrics["membership/loss.auc.low"], metrics["membership/loss.auc.high"]) == (0.55, 0.65)
    unresolved = document.measurements[0].model_copy(update={"value": None, "low": None, "high": None})
    assert "membership/loss.auc" not in trackers.list_metrics(
        document.model_copy(update={"measurements": (unresolved,)})
    )
    assert trackers.list_tags(document)["grade.membership"] == "slight"
    assert trackers.list_parameters(document) == {"model": "arch:a"}


def test_what_is_missing_or_impossible_is_said_before_any_work(folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    absent = ("mlflow", "wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))
    with pytest.raises(MissingExtra, match="mlflow") as missing:
        trackers.check_trackers("sqlite:///x.db", None)
    assert "securitynet[mlflow]" in str(missing.value.hint)
    with pytest.raises(MissingExtra) as missing:
        trackers.check_trackers(None, "team/project")
    assert "securitynet[wandb]" in str(missing.value.hint)
    for project in ("", "a/b/c", "team/", "a%b", "x" * 129):
        with pytest.raises(ConfigurationError, match="no project"):
            trackers.check_trackers(None, project)
    # The weights do not exist: nobody looks for them before the tracker is known to be there.
    model = ["assess", "arch:simple-cnn", "--weights", str(tmp_path / "no.st"), "--dataset", "digits"]
    assert isinstance(CliRunner().invoke(app, [*model, "--mlflow", "x"]).exception, MissingExtra)
    assert isinstance(CliRunner().invoke(app, ["export", str(folder)]).exception, ConfigurationError)
    assert isinstance(CliRunner().invoke(app, ["export", str(folder), "--wandb", "p"]).exception, MissingExtra)


def test_no_tracker_is_imported_unless_asked_for():
    code = (
        "import sys, securitynet.results.trackers as t; t.check_trackers(None, None); "
        "sys.exit('mlflow' in sys.modules or 'wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow  # its client takes seconds to import
@pytest.mark.parametrize("store", ["sqlite:///{}/mlflow.db", "{}/folder"])
def test_mlflow_has_the_numbers_and_the_files(document, folder, tmp_path, monkeypatch, store):
    pytest.importorskip("mlflow", reason="the extra slow-tests is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "strange-user")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = store.format(tmp_path)
    assert CliRunner().invoke(app, ["export", str(folder), "--mlflow", uri]).output.endswith("Logged.\n")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(trackers.EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == trackers.list_metrics(document)
    assert run.data.params == {"model": "arch:a"} and run.data.tags["grade.membership"] == "slight"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"result.json", "report.html"}
    assert "strange-user" not in f"{run.data.tags}{run.info}" and run.info.status == "FINISHED"
    with pytest.raises(trackers.TrackerError, match="cannot be used"):
        trackers.check_trackers("nonsense://x", None)


@pytest.mark.slow  # starts the tracker's own process
def test_wandb_has_the_numbers_and_no_names(document, folder, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra slow-tests is not installed")
    for name, value in {
        "WANDB_MODE": "offline",
        "LOGNAME": "strange-user",
        "HOME": str(tmp_path / "strange-home"),
    }.items():
        monkeypatch.setenv(name, value)
    number = trackers.log_to_wandb(document, "team/privacy", tmp_path / "out", [folder / "result.json"])
    (run,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert run.name.endswith(number)
    written = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    for name in (b"membership/loss.auc.high", b"grade.membership", b"arch:a", b"privacy"):
        assert name in written
    for name in (b"strange-user", b"strange-home", platform.node().encode(), str(tmp_path).encode()):
        assert name not in written
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="Nobody is logged in"):
        trackers.check_trackers(None, "privacy")
