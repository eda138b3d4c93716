"""The estimate of the time left counts trainings, which take most of the time of studies that train their targets."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace

import pytest

from securitynet.studies.execution.scheduler import Schedule, TargetTasks, Task
from securitynet.studies.execution.status_reporter import RunningTask, StatusReporter


def make_target(number, architecture="simple-cnn", epochs=10):
    train = {"architecture": architecture, "dataset": "digits", "epochs": epochs}
    plan = SimpleNamespace(train_key=f"recipe-{number}", train=train, label=f"target {number}", key=f"t{number}")
    return TargetTasks(plan=plan)


@pytest.fixture
def reporter(tmp_path):
    counts = SimpleNamespace(total=8, ok=2, failed=0, skipped=0, other_version=0)
    progress = SimpleNamespace(
        records={}, plan=SimpleNamespace(targets=[]), count_all=lambda: counts, count_waiting=lambda: {"loss": 6}
    )
    index = SimpleNamespace(timings=dict, refresh=lambda: SimpleNamespace(damaged={}))
    options = SimpleNamespace(state=tmp_path)
    made = StatusReporter("study", progress, index, options, time.monotonic(), None, lambda text: None)
    made.status.workers = 2
    return made


def read_left(reporter, schedule, running=()):
    reporter.report("running", running, len(schedule.list_unopened()), schedule.list_trainings(), force=True)
    return reporter.status.left


def test_epochs_that_are_left_count(reporter):
    targets = [make_target(0), make_target(1), make_target(2, "cifar-resnet20", epochs=40)]
    schedule = Schedule(targets)
    reporter.add_seconds("loss", 1.0)
    assert read_left(reporter, schedule) is None  # nothing is known about trainings yet
    schedule.recipes["recipe-0"] = "done"
    reporter.add_training(targets[0].plan, 20.0)  # 2 s an epoch
    assert read_left(reporter, schedule) == pytest.approx((6 * 1 + 10 * 2 + 40 * 2) / 2)
    reporter.add_training(targets[1].plan, 0.01)  # its model was there already: says nothing about the others
    assert read_left(reporter, schedule) == pytest.approx((6 * 1 + 10 * 2 + 40 * 2) / 2)
    running = RunningTask(Task("train", targets[2], key="recipe-2"), started=time.monotonic() - 100, done=10, total=40)
    schedule.recipes["recipe-2"] = "running"
    assert read_left(reporter, schedule, [running]) == pytest.approx((6 * 1 + 10 * 2 + 30 * 10) / 2, rel=0.01)
    schedule.recipes.update({"recipe-1": "done", "recipe-2": "failed"})
    assert read_left(reporter, schedule) == pytest.approx(6 / 2)
    assert dataclasses.asdict(reporter.status)["left"] == pytest.approx(6 / 2)
