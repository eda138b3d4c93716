"""Figures of membership inference say what is reached without the model; identities are not tested."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.analysis import quantities as q
from securitynet.analysis.claims import EVERY
from securitynet.analysis.figures.blind import describe_blind_baseline
from securitynet.analysis.figures.securitynet import FIGURES
from securitynet.analysis.frames import parse_name, tidy


def make_frame(blind: dict[int, tuple[float, float]], models: int = 8):
    random = np.random.default_rng(0)
    rows = []
    for number in range(models):
        gap = 0.05 * number
        case = {"case": f"m{number}", "model": f"m{number}", "dataset": "CIFAR-10", "purpose": "benchmark"}
        values = {
            "accuracy.gap": gap,
            "membership.correctness.auc": 0.5 + gap / 2,
            "membership.modified-entropy.auc": 0.5 + gap + 0.01 * random.normal(),
        }
        for name, value in values.items():
            rows.append(
                {**case, **parse_name(name), "value": value, "low": value - 0.02, "high": value + 0.02, "n": 100}
            )
        if number in blind:
            low, value = blind[number]
            name = parse_name("membership.modified-entropy.blind-auc")
            rows.append({**case, **name, "value": value, "low": low, "high": value + 0.03, "n": 100})
    return tidy(rows)


def test_captions_say_what_is_reached_without_the_model():
    everywhere = make_frame(dict.fromkeys(range(8), (0.47, 0.5)))
    said = describe_blind_baseline(everywhere, (q.MODIFIED_ENTROPY_AUC,))
    assert "n = 8, all models here: none distinguishes the groups" in said
    some = make_frame({0: (0.47, 0.5), 1: (0.6, 0.7)})
    assert "2 of the 8 models here: in 1 of them members and non-members differ anyway" in describe_blind_baseline(
        some, (q.MODIFIED_ENTROPY_AUC,)
    )
    assert "not measured" in describe_blind_baseline(make_frame({}), (), drawn=True)
    assert describe_blind_baseline(some, (q.TARGET_ACCURACY,)) == ""


def test_identities_and_controls_are_drawn_and_do_not_count_among_the_tests():
    (figure,) = (figure for figure in FIGURES if figure.name == "securitynet-13")
    drawn = figure.make(make_frame({number: (0.47, 0.5 + 0.001 * number) for number in range(8)}))
    by_panel = drawn.statistics.set_index("panel")
    tested = by_panel["p"].notna()
    assert [("Modified entropy" in name) for name in tested.index] == tested.tolist()
    # One is tested: Holm's correction changes nothing.
    assert by_panel.loc[tested, "p_adjusted"].iloc[0] == pytest.approx(by_panel.loc[tested, "p"].iloc[0])
    assert "Without the model (blind baseline)" in drawn.caption


def test_no_claim_correlates_correctness_with_the_overfitting_level():
    for claim in EVERY:
        used = set(claim.quantities.values())
        assert not {q.OVERFITTING, q.CORRECTNESS_AUC} <= used
