"""Two results: paired where the records are the same, newly exposed members by file, bounds on rise and fall."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from securitynet.assessments.comparison import compare_results, read_result
from securitynet.assessments.policy import Bound, judge_bounds, read_policy
from securitynet.errors import ConfigurationError, PolicyError
from securitynet.metrics.rates import MOVER_UNPAIRED
from securitynet.records import Direction, Measurement
from securitynet.reports.changes import describe_comparison, list_differences, write_markdown
from stored_results import ATTACK, N, write_result


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An earlier version, and one that exposes forty more members and is wrong on some records that were right."""
    random = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("versions")
    is_member = np.arange(N) < N // 2
    scores = random.normal(0.3 * is_member, 1)
    correct = random.random(N) < 0.9
    write_result(root / "old", "a" * 64, scores, correct)
    later, wrong = scores + random.normal(0, 0.01, N), correct.copy()
    later[20:60] = 50 + np.arange(40)
    wrong[np.flatnonzero(correct & ~is_member)[:12]] = False
    write_result(root / "new", "b" * 64, later, wrong)
    return root


def compare(root, old="old", new="new"):
    return compare_results(read_result(root / old), read_result(root / new / "result.json"))


def test_differences_are_paired_and_exposed_members_have_files(folders):
    comparison = compare(folders)
    by_name = {d.name: d for d in comparison.differences}
    assert comparison.records == N and comparison.notes == ()
    assert by_name[f"{ATTACK}.auc"].paired and by_name[f"{ATTACK}.auc"].verdict == "worse"
    accuracy = by_name["target.test_accuracy"]
    assert accuracy.difference.value == pytest.approx(-12 / 200)  # twelve of 200 non-members, and no other
    assert accuracy.paired and accuracy.verdict == "worse"
    assert by_name["target.train_accuracy"].verdict == "no difference shown"
    (change,) = comparison.exposure
    moved = {record.record for record in change.newly if 20 <= record.record < 60}
    assert len(moved) >= 30  # the others were exposed before
    assert change.newly[0].file == f"photos/{change.newly[0].record:03d}.png" and change.newly[0].new_share == 0
    assert change.newly_count == len(change.newly) and change.p_value < 0.001


def test_a_result_does_not_differ_from_itself(folders):
    comparison = compare(folders, "old", "old")
    assert {d.verdict for d in comparison.differences} == {"no difference shown"}
    assert all(d.difference.value == 0 for d in comparison.differences)
    assert [c.newly_count + c.no_longer_count for c in comparison.exposure] == [0]
    assert "same model" in " ".join(comparison.notes)


def test_other_images_are_not_paired(folders, tmp_path):
    write_result(tmp_path / "other", "c" * 64, np.zeros(N), np.ones(N, dtype=bool), fingerprint="0" * 16)
    comparison = compare_results(read_result(folders / "old"), read_result(tmp_path / "other"))
    assert comparison.records == 0 and not comparison.exposure
    assert {d.difference.method for d in comparison.differences} == {MOVER_UNPAIRED}
    assert "different images" in comparison.notes[0]


def advantage_of(value):
    direction = Direction.LOWER
    return Measurement(
        name=f"{ATTACK}.advantage", value=value, low=value - 0.1, high=value + 0.1, n=N, direction=direction, method="m"
    )


def test_other_records_of_one_model_say_nothing_about_it(tmp_path):
    write_result(tmp_path / "old", "a" * 64, np.zeros(N), np.ones(N, dtype=bool), extra=(advantage_of(0.2),))
    write_result(tmp_path / "new", "b" * 64, np.zeros(N), np.ones(N, dtype=bool), extra=(advantage_of(0.5),))
    old, new = (read_result(tmp_path / name) for name in ("old", "new"))
    other = new.document.dataset.model_copy(update={"split_fingerprint": "0" * 16})

    def compare_under(checksum):
        target = new.document.target.model_copy(update={"checksum": checksum})
        document = new.document.model_copy(update={"dataset": other, "target": target})
        return compare_results(old, dataclasses.replace(new, document=document))

    same, changed = compare_under("a" * 64), compare_under("b" * 64)
    assert {d.verdict for d in same.differences if not d.paired} == {"other records"}
    assert "other records" not in {d.verdict for d in (*changed.differences, *same.differences) if d.paired}
    assert "Nothing is concluded" in " ".join(describe_comparison(same))
    bound = {f"{ATTACK}.advantage": Bound(rise=0.1)}
    now = (advantage_of(0.5),)
    assert [v.why for v in judge_bounds(bound, now, same).violations] == ["nothing to compare it with"]
    assert "risen" in judge_bounds(bound, now, changed).violations[0].why
    assert {d.verdict for d in changed.differences if not d.paired} == {"worse"}


def test_rates_of_independent_estimates_by_hand(folders, tmp_path):
    one = Measurement(
        name=f"{ATTACK}.advantage", value=0.2, low=0.1, high=0.3, n=N, direction=Direction.LOWER, method="m"
    )
    two = one.model_copy(update={"value": 0.5, "low": 0.46, "high": 0.53})
    for folder, extra in (("one", one), ("two", two)):
        write_result(tmp_path / folder, folder[0] * 64, np.zeros(N), np.ones(N, dtype=bool), extra=(extra,))
    found = {d.name: d for d in compare(tmp_path, "one", "two").differences}[one.name]
    assert found.difference.value == pytest.approx(0.3)
    assert found.difference.low == pytest.approx(0.3 - np.hypot(0.04, 0.1))
    assert found.difference.high == pytest.approx(0.3 + np.hypot(0.03, 0.1))


def test_bounds_on_a_rise_and_a_fall(folders, tmp_path):
    comparison, later = compare(folders), read_result(folders / "new").document
    path = tmp_path / "policy.toml"

    def judged(text):
        path.write_text(text)
        return judge_bounds(read_policy(path), later.measurements, comparison)

    assert judged('"membership.*.auc" = { rise = 0.5 }').met
    outcome = judged('"membership.*.auc" = { rise = 0.001 }\n"target.test_accuracy" = { fall = 0.05, min = 0.1 }')
    assert [v.name for v in outcome.violations] == [f"{ATTACK}.auc", "target.test_accuracy"]
    assert "fallen by 0.06" in outcome.violations[1].why
    both = judged('"target.*_accuracy" = { min = 0.99 }')
    assert (both.met, both.bounds, len(both.violations)) == (False, 2, 2)  # a pattern counts once for each name
    assert not judged('"stealing.*.agreement" = { rise = 0.01 }').met  # what was not measured is not met
    assert not judge_bounds(read_policy(path), later.measurements).met
    path.write_text('"target.test_accuracy" = { risen = 0.05 }')
    with pytest.raises(PolicyError):
        read_policy(path)


def test_markdown_is_safe_and_short(folders):
    comparison = compare(folders)
    hostile = comparison.exposure[0].newly[0].model_copy(update={"file": "![x](http://e) <b>|@team`"})
    change = comparison.exposure[0].model_copy(update={"newly": (hostile,)})
    text = write_markdown(comparison.model_copy(update={"exposure": (change,)}))
    assert (
        "\\!" not in text and "<b>" not in text.replace("\\<b\\>", "") and "![x](" not in text and "@team" not in text
    )
    assert "worse" in text and text.count("\n") < 40
    assert len(list_differences(comparison, most=2)) == 2
    assert "shown to be worse" in describe_comparison(comparison)[0]


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no result"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"schema": "other/1"}))
    with pytest.raises(ConfigurationError, match="not a result"):
        read_result(tmp_path)
