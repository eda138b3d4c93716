"""Sentences on several targets: a difference is judged by its own interval, not by whether two intervals overlap."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from securitynet.assessments.comparison import measure_differences, read_result
from securitynet.assessments.paired_records import pair_records, read_stored_scores
from securitynet.metrics.roc import measure_auc
from securitynet.reports.families.membership import compare_membership
from securitynet.results.comparison import MeasuredDifference
from stored_results import N, write_result

IS_MEMBER = np.arange(N) < N // 2


@pytest.fixture
def write(tmp_path):
    def write_one(name, scores):
        measured = measure_auc(scores[IS_MEMBER], scores[~IS_MEMBER])
        checksum = format(len(list(tmp_path.iterdir())), "x") * 64
        write_result(
            tmp_path / name, checksum, scores, np.ones(N, dtype=bool), auc=(measured.value, measured.low, measured.high)
        )
        return read_result(tmp_path / name)

    return write_one


def describe(results, *, paired=True):
    def subtract(first: int, second: int) -> Mapping[str, MeasuredDifference]:
        one, two = results[first], results[second]
        read = read_stored_scores(one.store), read_stored_scores(two.store)
        records = pair_records(one.document, two.document, read) if paired else {}
        return {d.name: d for d in measure_differences(one.document, two.document, records)}

    documents = [result.document for result in results]
    return compare_membership(documents, [f"target {n}" for n in range(len(results))], subtract)


def test_a_difference_on_the_same_records_is_seen_though_the_intervals_overlap(write):
    random = np.random.default_rng(0)
    noise = random.normal(size=N)
    results = [write("strong", 0.7 * IS_MEMBER + noise), write("weak", 0.45 * IS_MEMBER + noise)]
    aucs = [next(m for m in r.document.measurements if m.name.endswith(".auc")) for r in results]
    assert aucs[0].low < aucs[1].high  # they overlap
    (sentence,) = describe(results)
    assert "Loss distinguishes members from non-members better for “target 0” than for “target 1”" in sentence
    assert "on the same records" in sentence and "the difference is +0." in sentence
    (independent,) = describe(results, paired=False)
    assert "is not shown to distinguish" in independent and "on the same records" not in independent


def test_equal_targets_are_rarely_told_apart_however_many_there_are(write):
    random = np.random.default_rng(1)
    told = 0
    for round_ in range(40):
        shift = 0.5 * IS_MEMBER
        results = [write(f"r{round_}-{n}", shift + random.normal(size=N)) for n in range(4)]
        (sentence,) = describe(results)
        assert "corrected for 6 pairs of targets" in sentence
        told += "is not shown" not in sentence
    assert told <= 5  # 2 are expected at most; more than 5 of 40 has a probability below 2% at 5%
