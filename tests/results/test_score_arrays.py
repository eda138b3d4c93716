"""Arrays beside a trial that do not fit each other."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.analysis.study_frames import tabulate_curve
from securitynet.assessments.comparison import compare_results, read_result
from securitynet.results.score_arrays import have_scores
from stored_results import N, write_result

GOOD = {
    "indices": np.arange(N),
    "scores": np.linspace(0, 1, N),
    "is_member": np.arange(N) < N // 2,
    "correct": np.ones(N, bool),
}
WRONG = {
    "of other lengths": {"scores": np.zeros(7)},
    "of two dimensions": {name: values[:, None] for name, values in GOOD.items()},
    "of no dimension": {name: values[0] for name, values in GOOD.items()},
    "numbers for truths": {"is_member": np.zeros(N)},
    "texts": {"scores": np.full(N, "a")},
    "complex": {"scores": np.zeros(N, complex)},
    "records of fractions": {"indices": np.linspace(0, 1, N)},
    "left out in two dimensions": {"left_out": np.zeros((2, 2), np.int64)},
}


def test_arrays_that_fit():
    assert have_scores(GOOD, "indices") and not have_scores({}) and not have_scores({"scores": GOOD["scores"]})


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_arrays_that_do_not_fit_are_left_out(change, tmp_path):
    arrays = {**GOOD, **change}
    assert not have_scores(arrays)
    assert tabulate_curve(arrays, {}) == []
    if "left_out" in change:  # the trial's record does not name it
        return
    write_result(tmp_path, "c" * 64, GOOD["scores"], GOOD["correct"])
    (path,) = tmp_path.rglob("*.npz")
    np.savez(path, **arrays)
    result = read_result(tmp_path)
    assert compare_results(result, result).records == 0
