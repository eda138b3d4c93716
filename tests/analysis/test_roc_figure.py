"""ROC figures: every drawn point is one of the metric's, and low FPRs keep their steps."""

from __future__ import annotations

import re

import numpy as np
import pytest

from securitynet.analysis.figures import render, roc, roc_lines, style
from securitynet.metrics.roc import compute_curve, compute_tpr_limits, count_allowed, measure_tpr_at_fpr, resolves

FPRS = (0.1, 0.01, 0.001)


def scores(members=6000, non_members=4000, shift=0.5):
    generator = np.random.default_rng(1)
    return generator.normal(shift, 1, members), generator.normal(0, 1, non_members)


def line(members, non_members, number=0):
    return roc_lines.RocLine(compute_curve(members, non_members), len(members), len(non_members), number, number)


def test_thinned_points_are_points_of_the_curve_and_few():
    whole = compute_curve(*scores())
    chosen = roc_lines.thin_curve(whole, FPRS)
    assert len(whole.fpr) > 9000
    assert len(chosen) <= roc_lines.MOST_POINTS
    assert (np.diff(chosen) > 0).all()
    assert (whole.fpr[chosen[0]], whole.tpr[chosen[0]]) == (0, 0)
    assert (whole.fpr[chosen[-1]], whole.tpr[chosen[-1]]) == (1, 1)


def test_drawn_steps_equal_the_metric():
    members, non_members = scores()
    whole = compute_curve(members, non_members)
    chosen = roc_lines.thin_curve(whole, FPRS)
    drawn = type(whole)(whole.fpr[chosen], whole.tpr[chosen])
    for fpr in FPRS:
        measured = measure_tpr_at_fpr(members, non_members, fpr).value
        bound = count_allowed(fpr, len(non_members)) / len(non_members)
        assert measured is None or roc_lines.read_tpr_at(whole, bound) == pytest.approx(measured, abs=1e-12)
        assert roc_lines.read_tpr_at(drawn, fpr) == roc_lines.read_tpr_at(whole, fpr)
    # The lowest false-positive counts, one by one: there a single record moves the curve.
    for count in range(11):
        assert roc_lines.read_tpr_at(drawn, count / 4000) == roc_lines.read_tpr_at(whole, count / 4000)


def test_thinning_keeps_the_area():
    whole = compute_curve(*scores())
    chosen = roc_lines.thin_curve(whole, FPRS)
    exact = np.trapezoid(whole.tpr, whole.fpr)
    assert np.trapezoid(whole.tpr[chosen], whole.fpr[chosen]) == pytest.approx(exact, abs=2e-3)


def test_short_curves_lose_only_points_on_straight_runs():
    members, non_members = np.array([4.0, 3.0, 1.0]), np.array([2.0, 0.0])
    whole = compute_curve(members, non_members)
    chosen = roc_lines.thin_curve(whole)
    assert list(zip(whole.fpr[chosen], whole.tpr[chosen].round(3), strict=True)) == [
        (0, 0),
        (0, 0.667),
        (0.5, 0.667),
        (0.5, 1),
        (1, 1),
    ]


def test_a_curve_of_one_threshold_is_a_line():
    assert list(roc_lines.thin_curve(compute_curve(np.ones(5), np.ones(5)))) == [0, 1]


def test_log_points_start_at_what_can_be_resolved():
    members, non_members = scores(300, 200)
    lines = {"a": line(members, non_members)}
    logged = roc.log_frame(roc.tabulate_curves(lines), lines, bottom=1 / 400)
    floor = 1 - 0.025 ** (1 / 200)  # at this FPR, none of 200 lies above the threshold with a probability of 2.5%
    assert logged["fpr"].min() == lines["a"].floor == pytest.approx(floor)
    assert resolves(200, floor * 1.001) and not resolves(200, floor * 0.98)
    assert logged["tpr"].min() >= 1 / 400
    # Three of 200 are a FPR of 1.5%; four would be 2%.
    assert logged["tpr"].iloc[0] == pytest.approx(max((members > np.sort(non_members)[-4]).mean(), 1 / 400))


def test_bands_are_the_intervals_of_the_metric_whatever_the_scores():
    members, non_members = scores(300, 200)
    members[:50] = non_members[:50]  # ties
    for fpr in (0.02, 0.1, 0.5):
        low, high = line(members, non_members).limits(np.array([fpr]))
        assert (low[0], high[0]) == compute_tpr_limits(members, non_members, fpr, 0.95)
    bands = roc.tabulate_bands({"a": line(members, non_members)}, 1 / 400)
    assert (bands["low"] <= bands["high"]).all() and bands["low"].min() >= 1 / 400


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_drawn_as_svg_png_and_pdf(scale):
    lines = {"first": line(*scores(300, 200)), "second": line(*scores(300, 200, shift=0.1), 1)}
    chart = roc.draw_roc_chart(roc.tabulate_curves(lines), lines, scale)
    svg = render.to_svg(chart)
    assert "first" in svg and "second" in svg
    assert style.choose_ink(0).light in svg and style.choose_ink(1).light in svg
    assert ("not resolvable" in svg) == (scale == "log")
    assert render.to_png(chart).startswith(b"\x89PNG")
    assert render.to_pdf(chart).startswith(b"%PDF")


def test_a_page_can_hold_two_drawings_whose_ids_are_the_same():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" viewBox="0 0 9 9">'
        '<defs><clipPath id="c1"/></defs><g clip-path="url(#c1)"/><use xlink:href="#c1"/></svg>'
    )
    inlined = render.inline_svg(svg, "p", title="a <b>", description="x & y")
    assert 'id="p-0"' in inlined and "url(#p-0)" in inlined and 'href="#p-0"' in inlined
    assert '"c1"' not in inlined and "xmlns" not in inlined and 'width="9"' not in inlined
    assert "a &lt;b&gt;" in inlined and "x &amp; y" in inlined


def test_each_colour_has_one_role_so_that_dark_screens_can_exchange_it():
    lights = [ink.light for ink in style.list_inks()]
    assert len(set(lights)) == len(lights)
    svg = render.to_svg(
        roc.draw_roc_chart(roc.tabulate_curves({"a": line(*scores(50, 50))}), {"a": line(*scores(50, 50))}, "log")
    )
    rules = style.exchange_rules(".plot")
    for colour in set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]+)"', svg)):
        assert f'"{colour}"' in rules, f"{colour} would stay as it is on a dark screen"
