"""The verdict on removed records: by hand, and false alarms for removals without a trace."""

from __future__ import annotations

import numpy as np

from securitynet.metrics.removal import judge_removal


def test_a_model_above_all_others_remembers():
    result = judge_removal(20, 5.0, np.linspace(0, 4, 39))
    assert result.verdict == "remembered" and result.p_value == 0.025 and "still knows them" in result.describe()


def test_ties_do_not_accuse():
    assert judge_removal(20, 4.0, np.linspace(0, 4, 39)).verdict == "no sign"


def test_few_models_resolve_nothing():
    result = judge_removal(20, 5.0, [1.0, 2.0, 3.0])
    assert result.verdict == "undecided" and "39 or more" in result.describe()


def test_less_confidence_than_never_having_had_them_is_said():
    result = judge_removal(20, -5.0, np.linspace(0, 4, 39))
    assert result.verdict == "no sign" and "give their removal away" in result.describe()


def test_exact_removal_is_accused_in_no_more_than_one_case_of_forty():
    draws = np.random.default_rng(1).standard_normal((2000, 40))
    accused = sum(judge_removal(20, row[0], row[1:]).verdict == "remembered" for row in draws)
    assert accused <= 0.035 * 2000
