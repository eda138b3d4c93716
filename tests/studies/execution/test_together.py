"""Trials of several targets in one task: the same results as one after another, whatever happens to one of them."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from securitynet.records import (
    Access,
    Auxiliary,
    DatasetIdentity,
    SplitIdentity,
    TargetIdentity,
    ThreatModel,
    TrialSpec,
)
from securitynet.results.store import TrialStore
from securitynet.studies.definition.file import RunSettings
from securitynet.studies.execution import run_options
from securitynet.studies.execution.scheduler import find_group
from study_box import run_together

REAL = """
[[attacks]]
name = ["correctness", "mlp-top3", "mlp-posteriors", "embedding-mlp"]
threat_models = ["black-box/none", "black-box/partial", "white-box/partial"]
"""
CHANGING = ("seconds", "environment", "finished", "digest", "arrays_digest")


def read_results(out) -> dict[str, tuple[dict, dict]]:
    """Trial id -> its record without what every run changes, and its arrays."""
    store, results = TrialStore(out), {}
    for result in store:
        document = result.model_dump(mode="json")
        for name in CHANGING:
            document.pop(name, None)
        results[result.spec.id] = document, store.load_arrays(result)
    return results


def test_the_files_are_those_of_targets_that_were_attacked_alone(box):
    box.write_networks(REAL)
    assert box.run().failed == 0
    grouped = read_results(box.out)
    assert len(grouped) == 16
    alone = {}
    for name in "abcd":
        shutil.rmtree(box.folder / "cache")
        shutil.rmtree(box.out)
        box.write_networks(REAL, name)
        assert box.run().failed == 0
        alone |= read_results(box.out)
    assert grouped.keys() == alone.keys()
    for id_, (document, arrays) in grouped.items():
        other, others = alone[id_]
        assert document == other
        assert arrays.keys() == others.keys()
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, others[name], err_msg=name)


def test_all_targets_of_a_worker_run_in_one_task(box):
    box.write_networks(run_together())
    assert box.run().ok == 4
    assert [line.count("+") for line in box.log("together")] == [3] and not box.log("alone")


def test_two_workers_divide_the_targets(box):
    box.write_networks(run_together(), "abcdefgh")
    assert box.run(workers=2).ok == 8
    assert sum(line.count("+") + 1 for line in box.log("together")) + len(box.log("alone")) == 8


@pytest.mark.parametrize("mode", ["raise", "kill"])
def test_a_target_that_fails_fails_alone(box, mode):
    box.write_networks(run_together(bad="b.py", mode=mode, when="always"))
    status = box.run(attempts=1)
    assert (status.ok, status.failed) == (3, 1)
    assert len(box.log("together")) == 1 and len(box.log("alone")) == 4
    (failed,) = [result for result in TrialStore(box.out) if result.status == "failed"]
    assert "b.py" in failed.spec.target.reference
    assert ("meant to fail" if mode == "raise" else "SIGKILL") in failed.reason


def test_a_target_that_cannot_be_opened_costs_no_other_of_its_group(box):
    path = box.write_networks(run_together())
    (box.folder / "c.py").write_text("def make():\n    raise ValueError('no such thing')\n")
    assert path.exists() and box.run().ok == 3
    assert [line.count("+") for line in box.log("together")] == [2]


def test_what_a_killed_group_had_stored_stays_and_the_rest_runs_alone(box):
    box.write_networks(run_together(bad="c.py", mode="once-kill", when="storing"))
    assert box.run(attempts=1).ok == 4
    assert len(box.log("together")) == 1
    assert sorted(line.split("/")[-1] for line in box.log("alone")) == ["python:c.py:make", "python:d.py:make"]


def test_a_runner_that_is_killed_in_a_group_goes_on_with_what_is_not_stored(box):
    box.write_networks(run_together(bad="c.py", mode="hang", when="storing"))
    runner = box.start("run", box.folder / "study.toml", "--out", box.out, "--workers", 1, "--threads", 1)
    try:
        while len(list((box.out / "trials").rglob("*.json"))) < 2:
            assert runner.poll() is None, runner.communicate()
    finally:
        runner.kill()
        runner.communicate()
    stored = {path: path.stat().st_mtime_ns for path in (box.out / "trials").rglob("*.json")}
    assert box.run(time_limit=5.0).ok == 4
    assert len(box.log("together")) == 2 and len(box.log("alone")) == 2  # c hung again, and then ran alone
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stored.items())


def make_trial(seed: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        spec=TrialSpec(
            target=TargetIdentity(reference="x", checksum=str(seed), preprocessing={}, head="logits"),
            dataset=DatasetIdentity(reference="digits", fingerprint="f"),
            split=SplitIdentity(name="public", fingerprint="s"),
            kind="attack",
            method="membership.mlp-top3",
            configuration={},
            method_version=1,
            threat_model=ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
            seed=0,
        )
    )


def test_targets_with_other_numbers_of_classes_are_in_other_groups():
    ten, two = (SimpleNamespace(facts={"num_classes": count}) for count in (10, 2))
    assert find_group(make_trial(1), ten) == find_group(make_trial(2), ten) != find_group(make_trial(1), two)


def test_open_targets_take_an_eighth_of_the_memory_at_most(monkeypatch):
    monkeypatch.setattr(run_options, "read_available_memory", lambda: 8 << 30)
    assert run_options.bound_memory(RunSettings()) == 1 << 30
    assert run_options.bound_memory(RunSettings(workers=4)) == 1 << 28
    assert run_options.bound_memory(RunSettings(workers=4, memory_limit=1.0)) == 1 << 27
