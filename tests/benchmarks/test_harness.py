"""The benchmarks' harness: what it refuses to time, and what it computes from times."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import run  # noqa: E402
from harness import results  # noqa: E402
from harness.environments import Environment, declared  # noqa: E402
from harness.measure import Judged, Measured, Sized, Timing, _judge, growth, measure, ratios  # noqa: E402
from harness.row import AtMost, Disagreement, Faster, Holds, near  # noqa: E402

FACTS = {
    "date": "2026-01-01",
    "revision": "abc",
    "device": "cpu",
    "threads": 1,
    "machine": {"processor": "p", "cores": 2, "memory_gib": 4, "system": "s", "python": "3", "torch": "2"},
    "material": "m",
    "seconds": 60.0,
}


def measured(folder, *sides, **changes):
    row = importlib.import_module("rows._sum").ROW
    row = dataclasses.replace(
        row,
        sides=sorted((side for side in row.sides if side.name in sides), key=lambda side: sides.index(side.name)),
        **changes,
    )
    return measure(
        "_sum",
        row,
        folder=folder,
        find=lambda name: Environment(name, Path(sys.executable), f"{name} 1"),
        device="cpu",
        threads=1,
        data=None,
        tell=lambda text: None,
    )


@pytest.mark.slow
def test_sides_that_agree_are_timed_in_turns(tmp_path):
    found = measured(tmp_path, "ours", "loop")
    assert not found.failure
    assert [one.size for one in found.sized] == [1_000, 100_000]
    for one in found.sized:
        assert one.agreement == "equal sums"
        for timing in one.timings.values():
            assert len(timing.seconds) == len(timing.processor) == 3
            assert min(timing.seconds) > 0
            assert timing.peak > 2**20
    assert found.growth.keys() == {"ours", "loop"}
    # 100 times as many numbers take a Python loop far more than 10 times as long
    assert found.growth["loop"] > 0.5
    assert [judged.met for judged in found.aims] == [True, True, True]


@pytest.mark.slow
def test_sides_that_disagree_have_no_times(tmp_path):
    found = measured(tmp_path, "ours", "wrong")
    assert "sum of wrong" in found.failure
    assert found.sized == []
    assert found.aims == []
    assert "not measured" in results.page([found], FACTS)


@pytest.mark.slow
def test_a_peer_that_fails_does_not_take_the_others_along(tmp_path):
    found = measured(tmp_path, "ours", "loop", "broken", "dead", sizes=(1_000,))
    assert found.sized[0].timings.keys() == {"ours", "loop"}
    assert "broken at 1,000: ValueError: no such thing" in found.failure
    assert "dead at 1,000: its process ended with 7" in found.failure
    assert len(found.aims) == 3


@pytest.mark.slow
def test_our_own_side_failing_ends_the_row(tmp_path):
    found = measured(tmp_path, "broken", "loop")
    assert found.sized == []
    assert "ValueError: no such thing" in found.failure


@pytest.mark.slow
def test_a_first_run_can_count(tmp_path):
    found = measured(tmp_path, "ours", "loop", sizes=(1_000,), rounds=2, warm_up=False)
    assert [len(timing.seconds) for timing in found.sized[0].timings.values()] == [2, 2]


def sized(size, **seconds):
    return Sized(size, "", {side: Timing(values, values, 1) for side, values in seconds.items()}, 0.0)


def test_growth_is_the_exponent():
    sizes = (10, 100, 1000)
    found = growth([sized(n, ours=[1e-3 * n] * 3, other=[1e-6 * n**2] * 3) for n in sizes])
    assert found["ours"] == pytest.approx(1)
    assert found["other"] == pytest.approx(2)
    assert growth([sized(10, ours=[1.0])]) == {}


def test_ratios_are_taken_within_a_round():
    # a machine that gets slower by the round: the ratio stays
    one = sized(1, ours=[1.0, 2.0, 8.0], other=[2.0, 4.0, 32.0])
    assert ratios(one, "ours", "other") == (0.5, 0.25, 0.5)
    assert ratios(one, "other", "ours") == (2.0, 2.0, 4.0)


def test_aims():
    assert AtMost(1.1, "bare").met(1.1)
    assert not AtMost(1.1, "bare").met(1.11)
    assert Faster(5, "peer").met(0.2)
    assert not Faster(5, "peer").met(0.21)


def test_an_aim_of_memory_is_judged_by_the_peak():
    one = sized(10, ours=[1.0])
    one.timings["ours"].peak = 900 * 2**20
    judged = [_judge(Holds(most, size=10), [one]) for most in (1000, 899)]
    assert [found.met for found in judged] == [True, False]
    assert results._measured(judged[0]) == "900 MiB" and judged[0].aim == "at most 1,000 MiB at 10"


def test_near_refuses_nan_and_other_shapes():
    assert near([1.0, 2.0], [1.0, 2.5], 0.5, "x") == 0.5
    for other in ([1.0, 2.6], [1.0], [1.0, float("nan")]):
        with pytest.raises(Disagreement):
            near([1.0, 2.0], other, 0.5, "x")


def test_every_row_is_complete():
    environments = {"project", *declared()}
    for name in run.names():
        row = run.load(name)
        sides = [side.name for side in row.sides]
        assert row.sides[0].environment == "project", name
        assert list(row.sizes) == sorted(set(row.sizes)), name
        assert {side.environment for side in row.sides} <= environments, name
        assert len(sides) == len(set(sides)), name
        for aim in row.aims:
            assert {aim.ours, getattr(aim, "of", aim.ours)} <= set(sides), (name, aim)
            assert aim.size is None or aim.size in row.sizes, (name, aim)
        assert row.compare is not None or len(row.sides) == 1, name


def test_results_can_be_read_back_and_compared(tmp_path):
    found = Measured("_sum", "Sum", "numbers", 1, {"ours": "a 1", "loop": "b 2"})
    found.sized = [sized(10, ours=[1.0, 1.2], loop=[5.0, 6.72])]
    found.aims = [Judged("5 times faster than loop", (0.19, 0.18, 0.2), True)]
    results.write(tmp_path, [found], FACTS)
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| Sum | 10 numbers | 5 times faster than loop | 5.3 times faster (5.0 to 5.6) | yes |" in page
    assert "| loop (b 2) | 10 | 5.86 (5.00 to 6.72) | 5.3 (5.0 to 5.6) |" in page
    assert run._kept(tmp_path / "results.json", FACTS, ("device", "revision")) == {"_sum": found}
    assert run._kept(tmp_path / "results.json", {**FACTS, "revision": "other"}, ("device", "revision")) == {}
    other = json.loads((tmp_path / "results.json").read_text())
    other["rows"][0]["aims"][0].update(ratio=[0.3, 0.25, 0.35], met=False)
    (tmp_path / "second.json").write_text(json.dumps(other))
    line = results.compare(tmp_path / "results.json", tmp_path / "second.json").splitlines()[-1]
    assert line == "| _sum | 5 times faster than loop | 0.190 | 0.300 | **no** | **no** |"


def test_a_process_is_measured_without_its_parent():
    from rows._process import timed

    large = b"x" * 300_000_000  # of the parent: no part of the child's
    found = timed([sys.executable, "-c", "import time; y = b'y' * 100_000_000; time.sleep(0.3)"])
    assert 1e8 < found["peak"] < 2e8 < len(large)
    assert found["seconds"] > 0.3 > found["processor"] / 2
    with pytest.raises(RuntimeError, match=r"ended with 1: ValueError: why"):
        timed([sys.executable, "-c", "raise ValueError('why')"])
