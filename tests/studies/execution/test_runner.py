"""Studies as a user runs them: what is lost with a worker, what is done twice, what is told."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pandas
import pytest

from securitynet.results.store import SCHEMA_FILE, TrialStore, write_trial_schema
from securitynet.results.study_targets import SCHEMA_FILE as SUBJECT_SCHEMA_FILE
from securitynet.results.study_targets import StudyTargetStore
from securitynet.results.study_targets import write_target_schema as subject_schema_text
from securitynet.studies.execution.inspect import inspect_study, rebuild_index
from securitynet.studies.execution.lock import StudyRuns
from securitynet.studies.execution.preview import preview_study
from securitynet.studies.execution.run import find_results

NONE = 'threat_models = ["black-box/none"]'
NUMBERS = f"""
[[attacks]]
name = "noop"
{NONE}
[attacks.grid]
number = [1, 2, 3, 4]
"""


def test_a_study_runs_and_a_second_run_finds_nothing_to_do(box):
    box.write(NUMBERS)
    first = box.run()
    assert (first.state, first.total, first.ok, first.finished_now) == ("finished", 8, 8, 8)
    before = box.table()
    again = box.run()
    assert (again.ok, again.finished_now) == (8, 0)
    assert len(box.log("ran")) == 8
    pandas.testing.assert_frame_equal(before, box.table())
    # Every file follows its published schema.
    for folder, file in (("trials", SCHEMA_FILE), ("subjects", SUBJECT_SCHEMA_FILE)):
        schema = json.loads(file.read_text())
        found = list((box.out / folder).rglob("*.json"))
        assert found
        for path in found:
            jsonschema.validate(json.loads(path.read_text()), schema)
    values = before[before["measure"] == "share"]
    assert sorted(values["value"]) == [0.02, 0.02, 0.04, 0.04, 0.06, 0.06, 0.08, 0.08]
    assert set(values["settings"]) == {json.dumps({"number": number}) for number in (1, 2, 3, 4)}
    # A preview agrees, and looking needs no runner.
    ahead = preview_study(box.folder / "study.toml", out=str(box.out), trust=box.code())
    assert ahead.counts.ok == 8 and not ahead.run
    assert inspect_study(find_results(str(box.out))).state == "finished"
    # Other measures are computed from what was kept; nothing runs.
    box.write("[measures]\nlevel = 0.8\nfprs = [0.2]\n" + NUMBERS)
    assert box.run().failed == 0
    other = box.table()
    assert set(other["level"]) >= {0.8} and "fpr=0.2" in set(other["at"].dropna()) and len(box.log("ran")) == 8


def test_published_schemas_are_those_of_the_records():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == write_trial_schema()
    assert SUBJECT_SCHEMA_FILE.read_text(encoding="utf-8") == subject_schema_text()


@pytest.mark.slow
def test_a_poisonous_trial_costs_that_trial_only(box):
    box.write(f"""
[[attacks]]
name = "noop"
{NONE}
[attacks.grid]
mode = ["ok", "raise", "exit", "segv", "hang", "print", "once-kill", "memory"]
""", models='[[models]]\nreference = "python:a.py:make"')  # fmt: skip
    limits = {"time_limit": 10.0, "attempts": 2, "memory_limit": 1.5}
    assert box.run(workers=2, **limits).failed == 5
    results = {r.spec.configuration["mode"]: r for r in TrialStore(box.out)}
    assert {mode for mode, r in results.items() if r.status == "ok"} == {"ok", "print", "once-kill"}
    assert "RuntimeError: it was meant to fail" in results["raise"].reason
    assert "misbehave" in results["raise"].traceback
    assert "exit code 7, 2 times" in results["exit"].reason
    assert "SIGSEGV" in results["segv"].reason and "Segmentation fault" in results["segv"].traceback
    assert "time limit of 10 seconds" in results["hang"].reason
    assert "above the limit of 1.5 GiB" in results["memory"].reason
    # Failures are records: they stay until they are asked to run again.
    assert box.run(**limits).finished_now == 0
    (box.folder / "study.toml").write_text((box.folder / "study.toml").read_text().replace('"hang", ', ""))
    assert box.run(retry_failed=True, attempts=1, memory_limit=1.5).finished_now == 4


def test_shared_work_is_done_once_and_its_failure_is_its_trials(box):
    box.write(f"""
[[attacks]]
name = "noop"
[attacks.settings]
shares = ["x", "y"]
[[attacks]]
name = "noop"
{NONE}
[attacks.settings]
number = 5
shares = ["y", "z"]
[[attacks]]
name = "noop"
{NONE}
[attacks.settings]
number = 6
shares = ["broken"]
shared_mode = "raise"
""")  # fmt: skip
    assert box.run(workers=2).failed == 2
    assert sorted(box.log("shared")) == ["x", "y", "z"]  # for two targets and two methods
    failed = [r for r in TrialStore(box.out) if r.status == "failed"]
    assert len(failed) == 2 and all("piece broken that it needs failed" in r.reason for r in failed)
    skipped = [r for r in TrialStore(box.out) if r.status == "skipped"]
    assert skipped == []  # a method that serves a threat model that can be played out is not told of the others


def test_targets_that_cannot_be_opened_are_records_and_cost_no_other(box):
    (box.folder / "broken.py").write_text("def make():\n    raise ValueError('no such thing')\n")
    models = """
[[models]]
reference = ["python:broken.py:make", "python:a.py:make"]
[[models]]
reference = "arch:simple-cnn"
weights = "absent.safetensors"
"""
    box.write(NUMBERS, models=models)
    ahead = "\n".join(preview_study(box.folder / "study.toml", out=str(box.out), trust=box.code()).lines())
    assert "weights is missing" in ahead
    status = box.run()
    assert (status.total, status.ok, status.failed) == (12, 4, 8)
    for told in (status, box.run()):  # each time: the exit code says each time that something failed
        reasons = dict(told.failures)
        assert "no such thing" in reasons["opening python:broken.py:make"]
        assert "weights is missing" in reasons["opening arch:simple-cnn absent"]
    records = {record.label: record for record in StudyTargetStore(box.out)}
    assert "no such thing" in records["python:broken.py:make"].traceback
    frame = box.table()
    assert set(frame[frame["status"] == "failed"]["model"]) == {"python:broken.py:make", "arch:simple-cnn absent"}
    # What was missing is there now: no trace of the failure is left.
    from securitynet.models.store.train_target import train_model
    from securitynet.models.training.config import TrainConfig

    train_model(
        TrainConfig(
            architecture="simple-cnn",
            dataset="digits",
            split="public",
            limit=60,
            out=box.folder / "absent.safetensors",
            epochs=1,
        )
    )
    mended = box.run()
    assert (mended.ok, mended.failed) == (8, 4)
    assert len(list(StudyTargetStore(box.out))) == 3


def test_a_corrupt_trial_file_is_named_kept_and_made_again(box):
    box.write(NUMBERS)
    box.run()
    before = box.table()
    victims = sorted((box.out / "trials").rglob("*.json"))[:2]
    victims[0].write_text(victims[0].read_text()[:200])
    victims[1].write_text(victims[1].read_text().replace('"seed": 0', '"seed": 1'))
    assert box.run().ok == 8
    told = " ".join(box.notes)
    assert all(victim.name in told for victim in victims) and "set-aside" in told
    assert len(list((box.out / "set-aside").iterdir())) == 2
    assert len(box.log("ran")) == 10
    pandas.testing.assert_frame_equal(before, box.table())
    # A lost or damaged index is made again from the files.
    (box.out / "index.sqlite").write_bytes(b"damage")
    assert rebuild_index(find_results(str(box.out)), print).read == 10
    pandas.testing.assert_frame_equal(before, box.table())


@pytest.mark.slow
def test_two_runners_and_ctrl_c(box):
    box.write(f"""
[[attacks]]
name = "noop"
{NONE}
[attacks.settings]
seconds = 0.7
[attacks.grid]
number = [1, 2, 3, 4, 5, 6]
""")
    arguments = ("run", box.folder / "study.toml", "--out", box.out, "--threads", 1, "--workers", 1)
    first = box.start(*arguments)
    try:
        wait_for(lambda: any((box.out / "trials").rglob("*.json")) if box.out.exists() else False)
        with pytest.raises(StudyRuns, match=f"process {first.pid}"):
            box.run()
        wait_for(lambda: inspect_study(find_results(str(box.out))).running)  # written once a second
        running = inspect_study(find_results(str(box.out)))
        assert running.state == "running" and running.total == 12
        first.send_signal(signal.SIGINT)
        first.wait(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 130
    ran, kept = box.log("ran"), list(TrialStore(box.out))
    assert 0 < len(kept) < 12 and len(ran) == len(kept)  # what ran was finished and kept
    assert box.run(workers=2).ok == 12
    assert len(box.log("ran")) == 12


def wait_for(condition, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


STEPS = f"""
[[attacks]]
name = "noop"
{NONE}
[attacks.settings]
seconds = 0.15
shares = ["p", "q"]
[attacks.grid]
number = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
[[attacks]]
name = ["modified-entropy", "mlp-top3"]
"""


def check_equal_to_undisturbed(disturbed, make_box):
    """The table of a disturbed run is that of an undisturbed one; no file is half-written."""
    calm = make_box("calm")
    calm.write(STEPS)
    assert calm.run().failed == 0
    pandas.testing.assert_frame_equal(calm.table(), disturbed.table())
    assert not list(disturbed.out.rglob(".*.tmp"))
    stored = list(TrialStore(disturbed.out))
    assert len(stored) == len(list((disturbed.out / "trials").rglob("*.json"))) == 28
    assert all(r.status == "ok" and TrialStore(disturbed.out).load_arrays(r) is not None for r in stored)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs ps and Linux's way of ending orphans")
def test_killed_twenty_times_and_the_table_is_the_same(make_box):
    """SIGKILL to the runner or a worker at random moments; each trial's file is written exactly once."""
    box = make_box("disturbed")
    box.write(STEPS)
    generator = random.Random(0)
    kills, written = 0, {}
    arguments = ("run", box.folder / "study.toml", "--out", box.out, "--threads", 1, "--workers", 2, "--attempts", 30)
    while kills < 20:
        runner = box.start(*arguments)
        began = time.monotonic()
        pause = generator.uniform(0.5, 12.0)
        while runner.poll() is None:
            note_writes(box, written)
            if time.monotonic() - began > pause and kills < 20:
                workers = children(runner.pid)
                if workers and generator.random() < 0.6:
                    victim = generator.choice(workers)
                    pause += generator.uniform(0.5, 8.0)
                else:
                    victim = runner.pid
                try:
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
            time.sleep(0.01)
        runner.communicate()
        if runner.returncode == 0 and kills < 20:  # done too early: begin anew with some of it
            for path in generator.sample(sorted((box.out / "trials").rglob("*.json")), 14):
                path.unlink()
                written.pop(path.name, None)
    assert box.run(workers=2, attempts=30).ok == 28
    note_writes(box, written)
    assert max(len(stamps) for stamps in written.values()) == 1
    check_equal_to_undisturbed(box, make_box)


def note_writes(box, written: dict[str, set[tuple[int, int]]]) -> None:
    """Which contents each trial file has had."""
    for path in (box.out / "trials").rglob("*.json"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        written.setdefault(path.name, set()).add((status.st_ino, status.st_mtime_ns))
