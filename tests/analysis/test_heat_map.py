"""The heat map colours by distance from chance, and figures that cannot show what they claim say so."""

from __future__ import annotations

import pandas
import pytest

from securitynet.analysis import quantities as q
from securitynet.analysis.figures import groups, points
from securitynet.analysis.figures.base import Figure, MissingData
from securitynet.analysis.figures.heat_map import measure_distances_from_chance
from securitynet.analysis.frames import Quantity


def test_distances_from_chance_by_hand() -> None:
    quantities = {
        "auc": Quantity("AUC", ("auc",), {"attack": ("membership",)}),
        "agreement": Quantity("agreement", ("agreement",), {"attack": ("stealing",)}),
        "drop": Quantity("drop", ("accuracy-drop",), {"attack": ("evasion",)}),
    }
    rows = pandas.DataFrame(
        {"auc": [0.5, 0.75, 0.4], "agreement": [0.1, 0.55, 0.55], "drop": [0.0, 0.3, None], "classes": [10, 10, None]}
    )
    found = measure_distances_from_chance(rows, quantities)
    assert found["auc"].tolist() == pytest.approx([0, 0.5, 0])
    assert found["agreement"].tolist() == pytest.approx([0, 0.5, 0.55])
    assert found["drop"].tolist()[:2] == pytest.approx([0, 0.3]) and pandas.isna(found["drop"][2])


def test_one_year_and_one_model_are_told_instead_of_drawn() -> None:
    rows = pandas.DataFrame({"case": ["a", "b"], "y": [0.1, 0.2], "x": [0.1, None], "year": [2016.0, 2016.0],
                             "family": "f", "dataset": "d", "model": ["a", "b"]})  # fmt: skip
    figure = Figure("f", "t", "new", {"y": q.STEALING_ACCURACY}, groups.draw, options={"by": "year", "ordered": True})
    with pytest.raises(MissingData, match="at least two values of year \\(all 2 are of 2016\\)"):
        groups.draw(rows, rows, figure)
    pair = Figure("f", "t", "new", {"x": q.TARGET_ACCURACY, "y": q.STEALING_ACCURACY}, points.draw)
    with pytest.raises(MissingData, match="at least two models"):
        points.draw(rows, rows, pair)
