"""A figure is drawn once for what it shows; a changed or damaged one is drawn again."""

from __future__ import annotations

import subprocess
import sys

from securitynet.reports.drawn_once import draw_once


def test_a_figure_is_drawn_once(tmp_path):
    drawn = []

    def draw():
        drawn.append(1)
        return f"<svg>{len(drawn)}</svg>"

    assert draw_once(["a", 1], draw, tmp_path) == "<svg>1</svg>"
    assert draw_once(["a", 1], draw, tmp_path) == "<svg>1</svg>"
    (path,) = (tmp_path / "figures").iterdir()
    assert draw_once(["a", 2], draw, tmp_path) == "<svg>2</svg>"
    path.write_bytes(path.read_bytes().replace(b"1<", b"9<"))
    assert draw_once(["a", 1], draw, tmp_path) == "<svg>3</svg>"


def test_a_cache_that_cannot_be_written_to_costs_time_only(tmp_path):
    (tmp_path / "figures").write_text("a file where the folder should be")
    assert draw_once(["a"], lambda: "<svg/>", tmp_path) == "<svg/>"


def test_assessing_loads_none_of_what_draws_figures_and_fits_trees():
    code = (
        "import sys, securitynet.api; securitynet.load_dataset('digits'); "
        "from securitynet.assessments.method_settings import choose_methods; "
        "choose_methods('attack', ['standard']); choose_methods('detector', ['standard']); "
        "print([name for name in ('altair', 'pandas', 'vl_convert', 'sklearn') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
