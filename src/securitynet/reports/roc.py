"""The ROC figure of a report: two scales, one legend, and the same as text."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from securitynet.analysis.figures import render, style
from securitynet.analysis.figures.roc_lines import RocLine, read_tpr_at
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.metrics import roc as metrics
from securitynet.metrics.roc import compute_curve
from securitynet.reports import verdict, words
from securitynet.reports.bars import draw_swatch
from securitynet.reports.drawn_once import draw_once
from securitynet.reports.families import membership
from securitynet.reports.families._membership_controls import find_blind_auc
from securitynet.results.document import ResultDocument

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment

READ_AT = (0.001, 0.01, 0.1, 0.5)
"""FPRs at which the curves are given as numbers too."""

MOST_LINES = 6
"""Lines of one figure: as many as there are colours and dashes."""


@dataclass(frozen=True)
class RocFigure:
    """What the template shows.

    Attributes:
        linear: Inline SVG.
        log: Inline SVG.
        legend: (sample, name) per line.
        header: FPRs of the table.
        table: (name, TPRs as text) per line.
        left_out: Attacks that are not drawn.
    """

    linear: Markup
    log: Markup
    legend: list[tuple[Markup, str]]
    header: list[str]
    table: list[tuple[str, list[str]]]
    left_out: int


def choose_strongest(documents: Sequence[ResultDocument]) -> tuple[list[str], int]:
    """Names of the attacks whose curves are drawn, and how many are left out to keep the lines distinguishable.

    There are `MOST_LINES` for all targets together, of at least one attack: the strongest of the first target,
    then those of the others.
    """
    ranked = list(dict.fromkeys(s.trial.name for document in documents for s in membership.rank_attacks(document)))
    blind = sum(find_blind_auc(document) is not None for document in documents)  # each has a line, too
    most = max((MOST_LINES - blind) // len(documents), 1)
    return ranked[:most], len(ranked[most:])


def draw_roc_lines(
    assessment: Assessment, names: Sequence[str], *, before: str = "", ink: int | None = None, dash: int = 0
) -> dict[str, RocLine]:
    """One line per membership attack that finished.

    Args:
        assessment: Holds the scores.
        names: Of the attacks to draw.
        before: Prefix of each name, which identifies the target.
        ink: Number of the colour of all lines, which identifies the target; by default each has its own.
        dash: Number of the first line's dashes: all lines of a figure differ in grey.
    """
    lines: dict[str, RocLine] = {}
    for trial in assessment.trials:
        scores = trial.output
        if trial.name not in names or not isinstance(scores, MembershipScores):
            continue
        name = before + verdict.title_attack(trial.name)
        if name in lines:  # the same attack under another threat model
            name += f", {trial.result.spec.threat_model}"
        members, non_members = scores.scores[scores.is_member], scores.scores[~scores.is_member]
        lines[name] = RocLine(
            compute_curve(members, non_members),
            len(members),
            len(non_members),
            ink=len(lines) if ink is None else ink,
            dash=dash + len(lines),
        )
    return lines


def draw_blind_line(
    assessment: Assessment, number: int, *, before: str = "", ink: int | None = None
) -> dict[str, RocLine]:
    """The line of the blind baseline; none where there is none, or no membership attack beside which it would stand.

    Args:
        assessment: Holds the scores.
        number: Of the line in its figure, for its dashes, and its colour unless ``ink`` says which.
        before: See `draw_roc_lines`.
        ink: See `draw_roc_lines`.
    """
    scores = assessment.controls.scores
    if scores is None or number == 0:
        return {}
    members, non_members = scores.scores[scores.is_member], scores.scores[~scores.is_member]
    line = RocLine(
        compute_curve(members, non_members),
        len(members),
        len(non_members),
        ink=number if ink is None else ink,
        dash=number,
    )
    return {f"{before}Blind baseline, without the model": line}


def draw_roc_figure(
    lines: Mapping[str, RocLine], fprs: Sequence[float], prefix: str, *, left_out: int = 0, cache: Path | None = None
) -> RocFigure:
    """Draw the lines in both scales.

    Args:
        lines: At least one, by name.
        fprs: At which TPRs are reported: the drawn curves are exact there.
        prefix: Of the drawings' ids.
        left_out: Attacks that are not drawn.
        cache: The cache folder; None for the user's.
    """
    # A name is hostile text: the figure gets numbers for names, and the page's own legend has the names.
    plain = {f"line {number}": line for number, line in enumerate(lines.values())}
    drawn = {}
    titles: dict[Literal["linear", "log"], str] = {
        "linear": "ROC curves, linear scale",
        "log": "ROC curves, logarithmic scale",
    }
    for scale, title in titles.items():
        content = [scale, list(fprs), [_identify(line) for line in lines.values()]]
        svg = draw_once(content, functools.partial(_draw, plain, fprs, scale), cache)
        description = "True-positive rate against false-positive rate. " + " ".join(_describe(lines))
        drawn[scale] = Markup(render.inline_svg(svg, f"{prefix}-{scale}", title=title, description=description))
    floor = min(line.floor for line in lines.values())
    header = sorted({fpr for fpr in (*READ_AT, *fprs) if fpr >= floor})
    return RocFigure(
        linear=drawn["linear"],
        log=drawn["log"],
        legend=[(draw_swatch(line.ink, style.choose_dash(line.dash)), name) for name, line in lines.items()],
        header=[words.write_percent(fpr) for fpr in header],
        table=[(name, [_tpr(line, fpr) for fpr in header]) for name, line in lines.items()],
        left_out=left_out,
    )


def _draw(lines: Mapping[str, RocLine], fprs: Sequence[float], scale: Literal["linear", "log"]) -> str:
    from securitynet.analysis.figures import roc

    return render.to_svg(roc.draw_roc_chart(roc.tabulate_curves(lines, keep=fprs), lines, scale, legend=False))


def _identify(line: RocLine) -> list[str | int]:
    """What of a line is drawn, for the cache."""
    points = hashlib.sha256(line.curve.fpr.tobytes() + line.curve.tpr.tobytes()).hexdigest()
    return [points, line.members, line.non_members, line.ink, line.dash]


def _describe(lines: Mapping[str, RocLine]) -> list[str]:
    return [f"{name}: TPR {_tpr(line, 0.1)} at FPR 10%, {_tpr(line, 0.5)} at FPR 50%." for name, line in lines.items()]


def _tpr(line: RocLine, fpr: float) -> str:
    if not metrics.resolves(line.non_members, fpr):
        return "not resolvable"
    return words.write_rate(read_tpr_at(line.curve, metrics.count_allowed(fpr, line.non_members) / line.non_members))
