"""The figure of accuracy over epsilon."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.analysis.figures import evasion, render
from securitynet.metrics.evasion import measure_evasion


def measured(*evading, epsilons=(0.01, 0.03, 0.1)):
    labels = np.zeros(100, dtype=np.int64)
    perturbed = np.stack([(np.arange(100) < count).astype(np.int64) for count in evading])
    return measure_evasion(labels, labels, perturbed, epsilons, level=0.95)


def test_points_are_the_measurements():
    found = measured(10, 40, 90)
    frame = evasion.tabulate_epsilons([*found[::-1], *(m.renamed("surrogate-1") for m in found)], "FGSM")
    assert list(frame["epsilon"]) == [0.01, 0.03, 0.1]
    assert list(frame["value"]) == pytest.approx([0.9, 0.6, 0.1])
    assert (frame["low"] < frame["value"]).all() and (frame["value"] < frame["high"]).all()


def test_the_figure_is_drawn_with_all_its_ticks_and_names():
    trials = {"FGSM": measured(10, 40, 90), "PGD": measured(30, 80, 100, epsilons=(0.01, 8 / 255, 0.1))}
    svg = render.to_svg(evasion.draw_evasion_chart(trials))
    for text in ("FGSM", "PGD", "0.01", "0.03", "0.0313725", "0.1", "Robust accuracy"):
        assert f">{text}<" in svg, text


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="robust-accuracy"):
        evasion.draw_evasion_chart({"FGSM": []})
