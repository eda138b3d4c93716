"""Slices: who is in which, what is measured within, and what is said of those that are too small."""

import numpy as np
import pytest

from securitynet.metrics import roc
from securitynet.metrics.slices import FEWEST, compute_slices, select_extremes


def made(seed=0, n=400):
    generator = np.random.default_rng(seed)
    is_member = generator.random(n) < 0.5
    labels = generator.integers(0, 4, n)
    return generator.normal(size=n) + is_member * labels, is_member, labels, generator.normal(size=n)


def test_each_kind_divides_all_records():
    scores, is_member, labels, margin = made()
    found = compute_slices(scores, is_member, labels=labels, correct=margin > 0, margin=margin, called=scores > 0)
    for by, count in (("correctness", 2), ("margin", 4), ("class", 4)):
        parts = [s for s in found if s.by == by]
        assert len(parts) == count
        assert sum(s.members for s in parts) == is_member.sum()
        assert sum(s.non_members for s in parts) == (~is_member).sum()


def test_values_are_those_of_the_part():
    scores, is_member, labels, _ = made()
    found = {s.name: s for s in compute_slices(scores, is_member, labels=labels, called=scores > 0.5)}
    part = labels == 2
    members, non_members = scores[part & is_member], scores[part & ~is_member]
    auc = roc.measure_auc(members, non_members, level=1 - 0.05 / len(np.unique(labels)))  # all classes at once
    assert (found["2"].auc.value, found["2"].auc.low, found["2"].auc.high) == (auc.value, auc.low, auc.high)
    assert found["2"].tpr == pytest.approx((members > 0.5).mean())
    assert found["2"].fpr == pytest.approx((non_members > 0.5).mean())


def test_a_class_without_records_and_a_small_one_say_so():
    scores, is_member = np.arange(12.0), np.arange(12) % 2 == 0
    labels = np.array([0] * 10 + [1] * 2)
    found = compute_slices(scores, is_member, labels=labels, class_names=("many", "few", "none"), called=scores > 5)
    assert [s.name for s in found] == ["many", "few", "none"]
    assert found[0].auc.value is not None and found[0].members == FEWEST
    assert found[1].auc.value is None and "fewer than" in found[1].auc.note and found[1].tpr is not None
    assert found[2].members == 0 and found[2].tpr is None and found[2].fpr is None


def test_equal_margins_leave_no_empty_parts():
    scores, is_member, *_ = made()
    found = compute_slices(scores, is_member, margin=np.zeros(len(scores)))
    assert [(s.name, s.members + s.non_members) for s in found] == [("at least 0", len(scores))]


def test_extremes_name_the_most_and_the_least_exposed_without_overlap():
    scores, is_member, labels, _ = made()
    found = compute_slices(scores, is_member, labels=labels)
    most, least = select_extremes(found, "class", 3)
    assert most[0].name == "3" and [s.name for s in least] == ["0"]
    assert select_extremes(found, "margin") == ([], [])
