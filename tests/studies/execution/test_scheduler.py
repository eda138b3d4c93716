"""The order of a study's work."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.execution.scheduler import Schedule, TargetTasks, Task


@dataclass(eq=False)
class Trial:
    """As much of a trial as scheduling looks at."""

    id: str
    words: str = ""
    plan: SimpleNamespace = field(default_factory=SimpleNamespace)


def make_target(key: str, **options) -> TargetTasks:
    train = options.pop("train", None)
    return TargetTasks(TargetPlan(key=key, label=key, options=options, train=train))


def trials(*ids: str) -> list[Trial]:
    return [Trial(name) for name in ids]


def take(schedule: Schedule, slot: int) -> tuple[str, str] | None:
    task = schedule.next(slot)
    taken[slot] = task
    return task and (
        task.kind,
        task.trial.id if task.trial and task.kind == "run_trial" else task.key or task.target.plan.key,
    )


taken: dict[int, Task | None] = {}


def end(schedule: Schedule, slot: int, ok: bool = True) -> None:
    schedule.end(taken.pop(slot), ok)


def test_each_target_is_opened_once_and_workers_stay_with_theirs():
    a, b = make_target("a"), make_target("b")
    schedule = Schedule([a, b])
    assert take(schedule, 0) == ("open", "a") and take(schedule, 1) == ("open", "b") and take(schedule, 2) is None
    schedule.open_target(a, trials("a1", "a2", "a3"), list_dependencies=False)
    end(schedule, 0)
    schedule.open_target(b, trials("b1"), list_dependencies=False)
    end(schedule, 1)
    assert take(schedule, 0) == ("run_trial", "a1") and take(schedule, 1) == ("run_trial", "b1")
    end(schedule, 1)
    assert b.state == "done"
    assert take(schedule, 1) == ("run_trial", "a2")  # it helps where most is left
    assert take(schedule, 2) == ("run_trial", "a3") and take(schedule, 3) is None
    for slot in (0, 1, 2):
        assert not schedule.finished
        end(schedule, slot)
    assert schedule.finished


def test_a_recipe_is_trained_once_for_all_targets_that_have_it():
    recipe = {"architecture": "x"}
    schedule = Schedule(
        [make_target("a", train=recipe), make_target("b", train=recipe, access="black-box"), make_target("c")]
    )
    assert take(schedule, 0) == ("open", "c")
    kind, key = take(schedule, 1)
    assert kind == "train" and take(schedule, 2) is None
    end(schedule, 1)
    assert {take(schedule, 1)[1], take(schedule, 2)[1]} == {"a", "b"}
    assert schedule.recipes == {key: "done"}


def test_trials_wait_for_shared_work_and_are_blocked_by_its_failure():
    a = make_target("a")
    schedule = Schedule([a])
    take(schedule, 0)
    schedule.open_target(a, trials("t1", "t2", "t3"), list_dependencies=True)
    end(schedule, 0)
    assert take(schedule, 0) == ("list_dependencies", "a") and take(schedule, 1) is None
    schedule.set_dependencies(a, {"t1": ["x"], "t2": ["x", "y"], "t3": []}, {"x": "X", "y": "Y"})
    end(schedule, 0)
    assert take(schedule, 0) == ("run_trial", "t3")  # needs nothing
    assert (
        take(schedule, 1) == ("run_dependency", "x")
        and take(schedule, 2) == ("run_dependency", "y")
        and take(schedule, 3) is None
    )
    end(schedule, 1)
    assert take(schedule, 1) == ("run_trial", "t1")
    end(schedule, 2, ok=False)
    assert [(trial.id, key) for trial, key in schedule.take_blocked(a)] == [("t2", "y")]
    end(schedule, 0)
    end(schedule, 1)
    assert schedule.finished


def test_what_is_lost_with_a_worker_is_begun_again():
    a = make_target("a", train={"architecture": "x"})
    schedule = Schedule([a])
    for kind in ("train", "open"):
        assert take(schedule, 0)[0] == kind
        schedule.release(0)
        schedule.requeue(taken.pop(0))
        assert take(schedule, 1)[0] == kind
        if kind == "open":
            schedule.open_target(a, trials("t1", "t2"), list_dependencies=False)
        end(schedule, 1)
    assert take(schedule, 0) == ("run_trial", "t1")
    schedule.release(0)
    schedule.requeue(taken.pop(0))
    assert [take(schedule, 0)[1], take(schedule, 1)[1]] == ["t2", "t1"]


def test_a_target_with_a_capped_number_of_queries_is_for_one_worker():
    a = make_target("a", max_queries=100)
    schedule = Schedule([a])
    take(schedule, 0)
    schedule.open_target(a, trials("t1", "t2"), list_dependencies=False)
    end(schedule, 0)
    assert take(schedule, 0) == ("run_trial", "t1") and take(schedule, 1) is None
    schedule.release(0)  # its worker died
    schedule.requeue(taken.pop(0))
    assert take(schedule, 1) == ("run_trial", "t2")


def open_grouped(schedule: Schedule, slot: int, target: TargetTasks, memory: int | None = 1000) -> None:
    assert take(schedule, slot) == ("open", target.plan.key)
    key = target.plan.key
    groups = {f"{key}2": "group"}
    schedule.open_target(target, trials(f"{key}1", f"{key}2"), list_dependencies=False, groups=groups, memory=memory)
    end(schedule, slot)


def test_trials_wait_for_those_of_other_targets_and_run_together():
    targets = [make_target(name) for name in "abc"]
    schedule = Schedule(targets)
    for target in targets:
        open_grouped(schedule, 0, target)
        assert take(schedule, 0) == ("run_trial", f"{target.plan.key}1")
        end(schedule, 0)
    assert take(schedule, 0)[0] == "run_together" and take(schedule, 1) is None
    assert [trial.id for _, trial in taken[0].members] == ["a2", "b2", "c2"]
    assert schedule.list_held(0) == ["a", "b", "c"] and not schedule.finished
    end(schedule, 0)
    assert schedule.finished


def test_a_lost_group_runs_one_by_one():
    targets = [make_target(name) for name in "ab"]
    schedule = Schedule(targets)
    for target in targets:
        open_grouped(schedule, 0, target)
        take(schedule, 0)
        end(schedule, 0)
    assert take(schedule, 0)[0] == "run_together"
    schedule.release(0)
    schedule.requeue(taken.pop(0))
    assert [take(schedule, 0), take(schedule, 1)] == [("run_trial", "a2"), ("run_trial", "b2")]
    end(schedule, 0)
    end(schedule, 1)
    assert schedule.finished


def test_a_worker_keeps_no_more_targets_open_than_it_may(monkeypatch):
    monkeypatch.setattr("securitynet.studies.execution.scheduler.MOST_TOGETHER", 2)
    targets = [make_target(name) for name in "abc"]
    schedule = Schedule(targets)
    for target in targets[:2]:
        open_grouped(schedule, 0, target)
        take(schedule, 0)
        end(schedule, 0)
    assert take(schedule, 0)[0] == "run_together"
    end(schedule, 0)
    open_grouped(schedule, 0, targets[2])
    assert schedule.list_held(0) == ["c"]
    for trial in ("c1", "c2"):  # without others it runs alone
        assert take(schedule, 0) == ("run_trial", trial)
        end(schedule, 0)
    assert schedule.finished


def test_large_targets_and_those_with_a_capped_number_of_queries_wait_for_no_other():
    large, capped, unknown = make_target("a"), make_target("b", max_queries=10), make_target("c")
    schedule = Schedule([large, capped, unknown])
    for target, memory in ((large, 1 << 30), (capped, 1000), (unknown, None)):
        open_grouped(schedule, 0, target, memory)
        for number in (1, 2):
            assert take(schedule, 0) == ("run_trial", f"{target.plan.key}{number}")
            assert schedule.list_held(0) == [target.plan.key]
            end(schedule, 0)
    assert schedule.finished
