"""The figure of accuracy under attack over epsilon: one for each norm, with a legend, and the same as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from securitynet.analysis.figures import render, style
from securitynet.metrics.evasion import ROBUST_ACCURACY, write_epsilon
from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.bars import draw_swatch
from securitynet.reports.drawn_once import draw_once
from securitynet.reports.families.evasion import find_norm
from securitynet.results.document import ResultDocument, TrialSummary

MOST_LINES = 6
"""Lines of one figure: as many as there are colours and dashes."""

NORMS = {
    "linf": "each pixel changed by at most ε of its range",
    "l2": "changed by at most ε in the Euclidean norm",
    "l1": "changed by at most ε in the sum of all values",
    "l0": "at most a share of ε of the pixels replaced",
    "patch": "at most a share of ε covered by a square",
}


@dataclass(frozen=True)
class RobustnessFigure:
    """What the template shows.

    Attributes:
        norm: What epsilon bounds, in words.
        picture: Inline SVG.
        legend: (sample, name) per line.
        header: Epsilons of the table.
        table: (name, accuracies as text) per line.
        left_out: Attacks that are not drawn.
    """

    norm: str
    picture: Markup
    legend: list[tuple[Markup, str]]
    header: list[str]
    table: list[tuple[str, list[str]]]
    left_out: int


def draw_robustness(document: ResultDocument, anchor: str, cache: Path | None = None) -> tuple[RobustnessFigure, ...]:
    """A figure for each norm in which evasion was measured at two epsilons or more; strongest attacks first.

    Args:
        document: The results on one target.
        anchor: Unique on the page.
        cache: The cache folder; None for the user's.
    """
    drawn = []
    for norm, text in NORMS.items():
        lines = _lines(document, norm)
        epsilons = sorted({epsilon for points in lines.values() for epsilon in points})
        if len(epsilons) < 2:
            continue
        ranked = sorted(lines, key=lambda name: float(np.mean([m.value or 0.0 for m in lines[name].values()])))
        shown = {name: lines[name] for name in ranked[:MOST_LINES]}
        drawn.append(_figure(shown, epsilons, text, f"{anchor}-{norm}", len(ranked) - len(shown), cache))
    return tuple(drawn)


def _figure(
    lines: dict[str, dict[float, Measurement]],
    epsilons: list[float],
    norm: str,
    prefix: str,
    left_out: int,
    cache: Path | None,
) -> RobustnessFigure:
    # A name is hostile text: the figure gets numbers for names, and the page's own legend has the names.
    plain = {f"line {number}": list(points.values()) for number, points in enumerate(lines.values())}
    table = [(name, [_text(points.get(epsilon)) for epsilon in epsilons]) for name, points in lines.items()]
    header = [write_epsilon(epsilon) for epsilon in epsilons]
    sentence = "; ".join(
        f"{name}: {', '.join(f'{value} at {epsilon}' for value, epsilon in zip(values, header, strict=True))}"
        for name, values in table
    )
    content = [[measurement.model_dump(mode="json") for measurement in points] for points in plain.values()]
    svg = draw_once(content, lambda: _draw(plain), cache)
    picture = render.inline_svg(
        svg, prefix, title="Accuracy under attack", description=f"Robust accuracy over epsilon, {norm}. {sentence}."
    )
    return RobustnessFigure(
        norm=norm,
        picture=Markup(picture),
        legend=[(draw_swatch(number, style.choose_dash(number)), name) for number, name in enumerate(lines)],
        header=header,
        table=table,
        left_out=left_out,
    )


def _draw(lines: dict[str, list[Measurement]]) -> str:
    from securitynet.analysis.figures import evasion

    return render.to_svg(evasion.draw_evasion_chart(lines, legend=False))


def _lines(document: ResultDocument, norm: str) -> dict[str, dict[float, Measurement]]:
    """Robust accuracies by the attack's title and epsilon."""
    lines: dict[str, dict[float, Measurement]] = {}
    for trial in document.trials:
        if not _counts(trial, norm):
            continue
        points = {}
        start = f"{trial.name}.{ROBUST_ACCURACY}@epsilon="
        for measurement in verdict.select_measurements(document, trial):
            if measurement.name.startswith(start) and measurement.value is not None:
                points[float(measurement.name.removeprefix(start))] = measurement
        if points:
            name = verdict.title_attack(trial.name)
            lines[f"{name}, {trial.threat_model}" if name in lines else name] = dict(sorted(points.items()))
    return lines


def _counts(trial: TrialSummary, norm: str) -> bool:
    ran = trial.name.startswith("evasion.") and trial.status == "ok"
    return ran and find_norm(trial) == norm


def _text(measurement: Measurement | None) -> str:
    numbers = words.write_numbers(measurement) if measurement is not None else None
    return "not measured" if numbers is None else f"{numbers.value} ({numbers.interval})"
