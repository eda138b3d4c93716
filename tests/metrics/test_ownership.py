"""The verdict on a suspect: ranks among independent models, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.metrics.ownership import count_fewest_references, rank_suspect


def test_by_hand():
    found = rank_suspect(80, 100, [0.1] * 18 + [0.9])
    assert found.p_value == pytest.approx(2 / 20) and found.verdict == "no sign"
    assert found.match.value == 0.8 and "does not clear it" in found.describe() and "neither of two" in found.describe()
    assert "not shown to be a copy" in found.describe()
    assert rank_suspect(80, 100, [0.1] * 19).verdict == "copy"
    assert rank_suspect(80, 100, [0.8] * 19).p_value == 1  # ties do not accuse


def test_few_references_give_no_verdict():
    assert count_fewest_references() == 19
    found = rank_suspect(100, 100, [0.0] * 18)
    assert found.verdict == "undecided" and "19 or more" in found.describe()
    nothing = rank_suspect(100, 100, [])
    assert nothing.verdict == "undecided" and "says nothing" in nothing.describe()


def test_independent_suspects_are_rarely_accused():
    draws = np.random.default_rng(0)
    accused = 0
    for _ in range(2000):
        *references, suspect = draws.binomial(200, draws.beta(2, 20, 28)) / 200
        accused += rank_suspect(round(suspect * 200), 200, references).verdict == "copy"
    assert accused / 2000 <= 0.06
