"""Judged images that were queried are left out, by their content and whatever their dataset is called."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from securitynet.attacks.stealing._overlap import leave_out_queried
from securitynet.attacks.stealing._stolen_models import StolenModels
from securitynet.errors import ConfigurationError


@pytest.fixture
def renamed(digits):
    """The digits under another name, as an adversary with data of another kind would hold them."""
    return dataclasses.replace(digits, reference="numbers", attributes={}, parts={}, content_digest=None)


def test_queried_images_are_found_under_another_name(digits, renamed):
    judged = np.arange(1000, 1400, dtype=np.int64)
    found = leave_out_queried(digits, judged, (renamed, np.arange(900, 1100, dtype=np.int64)))
    assert found.equal == 100 and found.near <= 3
    assert np.isin(found.records, np.arange(1100, 1400)).all() and len(found.records) == 300 - found.near
    nothing = leave_out_queried(digits, judged, (renamed, np.arange(0, 200, dtype=np.int64)))
    assert nothing.equal == 0


def test_nothing_to_judge_on_is_an_error(digits, renamed):
    judged = np.arange(100, dtype=np.int64)
    with pytest.raises(ConfigurationError, match="were queried"):
        leave_out_queried(digits, judged, (renamed, np.arange(200, dtype=np.int64)))


def make_stolen(queried):
    n = 40
    labels = np.arange(n, dtype=np.int64) % 4
    return StolenModels(
        np.arange(n, dtype=np.int64), labels, labels, np.array([10, 20]), np.stack([labels, labels]),
        np.full((2, n), 0.9, np.float32), np.zeros((2, n), np.float32), ("", ""), "simple-cnn", queried=queried,
    )  # fmt: skip


def test_what_is_left_out_is_measured_and_kept():
    stolen = make_stolen(np.array([9, 1]))
    measured = {m.name: m for m in stolen.measurements(level=0.95, fprs=(), seed=0)}
    assert measured["queried-share"].value == pytest.approx(10 / 50)
    assert StolenModels.from_arrays(stolen.arrays()).queried.tolist() == [9, 1]
    plain = make_stolen(np.zeros(2, np.int64)).measurements(level=0.95, fprs=(), seed=0)
    assert "queried-share" not in {m.name for m in plain}


def test_records_that_are_not_judged_can_be_taken_out():
    rest = make_stolen(np.zeros(2, np.int64)).without(np.array([0, 1, 99]))
    assert rest.indices.tolist() == list(range(2, 40)) and rest.surrogate.shape == (2, 38)
    whole = make_stolen(np.zeros(2, np.int64))
    assert whole.without(np.arange(40)) is whole
