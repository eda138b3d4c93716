"""The order of a study's work."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from securitynet.studies.definition.targets import SubjectPlan
from securitynet.studies.execution.scheduler import Schedule, Subject, Task


@dataclass(eq=False)
class Trial:
    """As much of a trial as scheduling looks at."""

    id: str
    words: str = ""
    plan: SimpleNamespace = field(default_factory=SimpleNamespace)


def subject(key: str, **options) -> Subject:
    train = options.pop("train", None)
    return Subject(SubjectPlan(key=key, label=key, options=options, train=train))


def trials(*ids: str) -> list[Trial]:
    return [Trial(name) for name in ids]


def take(schedule: Schedule, slot: int) -> tuple[str, str] | None:
    task = schedule.next(slot)
    taken[slot] = task
    return task and (
        task.kind,
        task.trial.id if task.trial and task.kind == "trial" else task.key or task.subject.plan.key,
    )


taken: dict[int, Task | None] = {}


def end(schedule: Schedule, slot: int, ok: bool = True) -> None:
    schedule.ended(taken.pop(slot), ok)


def test_each_target_is_opened_once_and_workers_stay_with_theirs():
    a, b = subject("a"), subject("b")
    schedule = Schedule([a, b])
    assert take(schedule, 0) == ("open", "a") and take(schedule, 1) == ("open", "b") and take(schedule, 2) is None
    schedule.opened(a, trials("a1", "a2", "a3"), survey=False)
    end(schedule, 0)
    schedule.opened(b, trials("b1"), survey=False)
    end(schedule, 1)
    assert take(schedule, 0) == ("trial", "a1") and take(schedule, 1) == ("trial", "b1")
    end(schedule, 1)
    assert b.state == "done"
    assert take(schedule, 1) == ("trial", "a2")  # it helps where most is left
    assert take(schedule, 2) == ("trial", "a3") and take(schedule, 3) is None
    for slot in (0, 1, 2):
        assert not schedule.finished
        end(schedule, slot)
    assert schedule.finished


def test_a_recipe_is_trained_once_for_all_subjects_that_have_it():
    recipe = {"architecture": "x"}
    schedule = Schedule([subject("a", train=recipe), subject("b", train=recipe, access="black-box"), subject("c")])
    assert take(schedule, 0) == ("open", "c")
    kind, key = take(schedule, 1)
    assert kind == "train" and take(schedule, 2) is None
    end(schedule, 1)
    assert {take(schedule, 1)[1], take(schedule, 2)[1]} == {"a", "b"}
    assert schedule.recipes == {key: "done"}


def test_trials_wait_for_shared_work_and_are_blocked_by_its_failure():
    a = subject("a")
    schedule = Schedule([a])
    take(schedule, 0)
    schedule.opened(a, trials("t1", "t2", "t3"), survey=True)
    end(schedule, 0)
    assert take(schedule, 0) == ("survey", "a") and take(schedule, 1) is None
    schedule.surveyed(a, {"t1": ["x"], "t2": ["x", "y"], "t3": []}, {"x": "X", "y": "Y"})
    end(schedule, 0)
    assert take(schedule, 0) == ("trial", "t3")  # needs nothing
    assert take(schedule, 1) == ("share", "x") and take(schedule, 2) == ("share", "y") and take(schedule, 3) is None
    end(schedule, 1)
    assert take(schedule, 1) == ("trial", "t1")
    end(schedule, 2, ok=False)
    assert [(trial.id, key) for trial, key in schedule.blocked(a)] == [("t2", "y")]
    end(schedule, 0)
    end(schedule, 1)
    assert schedule.finished


def test_what_is_lost_with_a_worker_is_begun_again():
    a = subject("a", train={"architecture": "x"})
    schedule = Schedule([a])
    for kind in ("train", "open"):
        assert take(schedule, 0)[0] == kind
        schedule.release(0)
        schedule.again(taken.pop(0))
        assert take(schedule, 1)[0] == kind
        if kind == "open":
            schedule.opened(a, trials("t1", "t2"), survey=False)
        end(schedule, 1)
    assert take(schedule, 0) == ("trial", "t1")
    schedule.release(0)
    schedule.again(taken.pop(0))
    assert [take(schedule, 0)[1], take(schedule, 1)[1]] == ["t2", "t1"]


def test_a_target_with_a_capped_number_of_queries_is_for_one_worker():
    a = subject("a", max_queries=100)
    schedule = Schedule([a])
    take(schedule, 0)
    schedule.opened(a, trials("t1", "t2"), survey=False)
    end(schedule, 0)
    assert take(schedule, 0) == ("trial", "t1") and take(schedule, 1) is None
    schedule.release(0)  # its worker died
    schedule.again(taken.pop(0))
    assert take(schedule, 1) == ("trial", "t2")
