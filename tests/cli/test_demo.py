"""The demonstration shows what it is for: the overfitted model gives its members away, the regularised one less."""

import json

import pytest


@pytest.mark.slow  # `.ci/run` makes the demo anyway
def test_demo(run_cli, tmp_path):
    finished = run_cli("demo", "--out", tmp_path / "demo", "--json")
    assert finished.returncode == 0, finished.stderr
    overfitted, regularised = ({m["name"]: m for m in d["measurements"]} for d in json.loads(finished.stdout))
    auc = "membership.modified-entropy.auc"
    assert overfitted[auc]["low"] > 0.6
    assert regularised[auc]["value"] < overfitted[auc]["low"]
    assert overfitted["target.overfitting"]["value"] > regularised["target.overfitting"]["value"]
    report = (tmp_path / "demo" / "report.html").read_text()
    assert "overfitted" in report and "regularised" in report
    assert all((tmp_path / "demo" / name / "exposed.csv").is_file() for name in ("overfitted", "regularised"))
    again = run_cli("demo", "--out", tmp_path / "demo", "--json")
    assert [d["measurements"] for d in json.loads(again.stdout)] == [
        d["measurements"] for d in json.loads(finished.stdout)
    ]
