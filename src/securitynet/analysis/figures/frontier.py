"""Utility against risk: one point per defense, the best ones joined, for each dataset and kind of adversary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import statistics
from securitynet.analysis.figures import style
from securitynet.analysis.figures.base import Chart, Drawn, Figure
from securitynet.analysis.figures.defenses import name_defenses
from securitynet.analysis.figures.points import make_axis
from securitynet.analysis.figures.texts import estimate
from securitynet.analysis.frames import Quantity
from securitynet.analysis.quantities import STRONGEST_MEMBERSHIP

WIDTH, HEIGHT = 460, 330
MOST_NAMED = 8
MOST_LABELS = 20
_PIXELS, _LINE = 6.1, 12.0
"""Width of a digit, which few letters exceed, and height of a line of labels, in pixels."""

BOXES = {"black-box": "querying the model (black-box)", "white-box": "with its weights (white-box)"}
BEST, OTHER, PLAIN = "best", "surpassed by another", "no defense"
KINDS = {BEST: (style.choose_ink(1), "circle"), OTHER: (style.choose_ink(0), "square"), PLAIN: (style.TEXT, "diamond")}
"""Kind -> colour and shape: the shape identifies it where a page is printed in grey."""


def list_lacking(tidy: pandas.DataFrame) -> list[str]:
    """Says that the risk of the worst records was not measured."""
    return [] if (tidy["method"] == "lira-most-exposed").any() else ["the attack lira-most-exposed"]


def draw(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """A panel for each dataset and adversary; without any defense, a panel for each dataset with its models.

    Risk is the largest AUC of any membership attack of that adversary, or the true-positive rate on the worst records
    at the lowest false-positive rate that was resolved: the first of the figure's quantities that has values. Scores
    that point the wrong way are reversed, as an adversary who knows of the defense would reverse them. Output defenses
    do not stop an adversary who has the weights, so they are not drawn for white-box access.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    utility, *risk_names = figure.quantities
    risk = figure.quantities[next((name for name in risk_names if wide[name].notna().any()), risk_names[-1])]
    with_defense = wide["defense"].notna()
    cases = wide[wide["dataset"].isin(wide.loc[with_defense, "dataset"])] if with_defense.any() else wide
    panels, tables = [], []
    for dataset, part in cases[cases[utility].notna()].groupby("dataset", sort=True):
        for box, words in BOXES.items():
            data = tabulate_defenses(
                part, find_largest_risks(tidy, box, risk), utility, by_defense=bool(with_defense.any())
            )
            if data.empty or (box == "white-box" and not with_defense.any()):
                continue
            data = data.assign(dataset=dataset, adversary=box)
            tables.append(data)
            panels.append((f"{dataset}, {words}", data))
    there = {kind for data in tables for kind in data["kind"]}
    axes, kinds = (figure.quantities[utility], risk), [kind for kind in KINDS if kind in there]
    charts = [_panel(data, title, axes, kinds) for title, data in panels]
    columns = 1 if len(charts) == 1 else 2
    rows = [alt.hconcat(*charts[start : start + columns], spacing=28) for start in range(0, len(charts), columns)]
    table = pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame()
    return Drawn(style.style_chart(alt.vconcat(*rows, spacing=24)), _caption(figure, panels), table)


def find_largest_risks(tidy: pandas.DataFrame, box: str, risk: Quantity = STRONGEST_MEMBERSHIP) -> pandas.DataFrame:
    """The largest risk of any attack on each case: value, low, high, method. An AUC below one half is reversed.

    Args:
        tidy: Tidy frame, as `securitynet.analysis.frames` defines it.
        box: ``black-box``: attacks with black-box access. ``white-box``: all attacks, on cases with white-box attacks.
        risk: The measure of risk.
    """
    rows = tidy[tidy["measure"].isin(risk.measure) & tidy["value"].notna()]
    for column, values in risk.where.items():
        rows = rows[rows[column].isin(values)]
    if box == "white-box":
        rows = rows[rows["case"].isin(rows.loc[rows["access"] == "white-box", "case"])]
    else:
        rows = rows[rows["access"].isna() | (rows["access"] == "black-box")]
    wrong = (rows["measure"] == "auc") & (rows["value"] < 0.5)
    value = rows["value"].where(~wrong, 1 - rows["value"])
    low, high = rows["low"].where(~wrong, 1 - rows["high"]), rows["high"].where(~wrong, 1 - rows["low"])
    rows = rows.assign(value=value, low=low, high=high).sort_values("value", ascending=False, kind="stable")
    return rows.drop_duplicates("case").set_index("case")[["value", "low", "high", "method"]]


def tabulate_defenses(
    cases: pandas.DataFrame, risk: pandas.DataFrame, utility: str, *, by_defense: bool
) -> pandas.DataFrame:
    """One row per defense with its settings and architecture (means over its targets, with intervals), or per model.

    Args:
        cases: One row per case.
        risk: The result of `find_largest_risks`.
        utility: Name of the quantity that measures utility.
        by_defense: Whether cases with the same defense are averaged.

    Returns:
        name, accuracy, accuracy_low, accuracy_high, risk, risk_low, risk_high, targets, attack, kind.
    """
    data = cases[cases["case"].isin(risk.index)].copy()
    if data.empty:
        return pandas.DataFrame()
    for name in ("value", "low", "high", "method"):
        data[f"_{name}"] = data["case"].map(risk[name])
    data["_name"] = name_defenses(data) if by_defense else data["model"].astype(str)
    for column in ("architecture", "epochs") if by_defense else ():  # named where they distinguish the rows
        if data[column].nunique() > 1:
            words = data[column].map(
                lambda value, column=column: f"{value:g} epochs" if column == "epochs" else str(value)
            )
            data["_name"] = data["_name"] + ", " + words
    rows = []
    for _, part in data.groupby("_name" if by_defense else "case", sort=True):
        ends: dict[str, float] = {}
        for label, columns in {"accuracy": (utility, f"{utility}_low", f"{utility}_high"),
                               "risk": ("_value", "_low", "_high")}.items():  # fmt: skip
            if len(part) == 1:
                numbers = [float(part[column].iloc[0]) for column in columns]
            else:
                mean = statistics.estimate_mean(part[columns[0]].to_numpy(float), bounds=(0, 1))
                numbers = [mean.value, mean.low, mean.high]
            ends |= dict(zip((label, f"{label}_low", f"{label}_high"), numbers, strict=True))
        attack = str(part["_method"].mode().iloc[0])
        plain = by_defense and bool(part["defense"].isna().all())
        rows.append({"name": part["_name"].iloc[0], **ends, "targets": len(part), "attack": attack, "plain": plain})
    table = pandas.DataFrame(rows)
    best = find_frontier(table["accuracy"].to_numpy(float), table["risk"].to_numpy(float))
    table["kind"] = np.where(table.pop("plain"), PLAIN, np.where(best, BEST, OTHER))
    return table.assign(best=best).sort_values("kind", key=lambda kind: kind == PLAIN, kind="stable")  # drawn on top


def find_frontier(utility: NDArray[np.float64], risk: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other surpasses: none has at least the utility and at most the risk, and one of them better.

    Args:
        utility: N, higher is better.
        risk: N, lower is better.
    """
    better = (utility[None, :] >= utility[:, None]) & (risk[None, :] <= risk[:, None])
    strictly = (utility[None, :] > utility[:, None]) | (risk[None, :] < risk[:, None])
    return np.asarray(~(better & strictly).any(axis=1))


def _panel(table: pandas.DataFrame, title: str, axes: tuple[Quantity, Quantity], kinds: Sequence[str]) -> Chart:
    utility, risk = axes
    chance = risk.chance or 0.0
    x_domain = _domain(table, "accuracy", (), 1.0)
    y_domain = _domain(table, "risk", (chance,), 1.0)
    # Every layer names the scales: one that does not would stretch them to zero.
    x_scale = alt.Scale(domain=x_domain, nice=False, zero=False)
    y_scale = alt.Scale(domain=y_domain, nice=False, zero=False)
    x = alt.X("accuracy:Q", title=utility.label, scale=x_scale, axis=make_axis(utility))
    y = alt.Y("risk:Q", title=risk.label, scale=y_scale, axis=make_axis(risk))
    level = alt.Chart(pandas.DataFrame({"risk": [chance]})).mark_rule(strokeDash=[3, 3], color=style.CHANCE.light)
    spans = alt.Chart(table).mark_rule(opacity=0.3, color=style.TEXT.light)
    line = alt.Chart(table[table["best"]].sort_values("accuracy")).mark_line(
        interpolate="step-before", color=style.choose_ink(1).light, strokeWidth=1.2
    )
    inks, shapes = [KINDS[kind][0].light for kind in kinds], [KINDS[kind][1] for kind in kinds]
    legend = alt.Legend(symbolType=alt.Undefined, symbolSize=70)
    marks = alt.Chart(table).mark_point(filled=True, size=52, opacity=0.9).encode(
        x, y,
        color=alt.Color("kind:N", scale=alt.Scale(domain=list(kinds), range=inks), legend=legend),
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=list(kinds), range=shapes), legend=legend),
        tooltip=["name:N", "accuracy:Q", "risk:Q", "attack:N", "targets:Q"],
    )  # fmt: skip
    layers: list[alt.Chart] = [
        level.encode(y=y), line.encode(x, y),
        spans.encode(x, alt.Y("risk_low:Q", scale=y_scale), alt.Y2("risk_high:Q")),
        spans.encode(y, alt.X("accuracy_low:Q", scale=x_scale), alt.X2("accuracy_high:Q")),
        marks,
    ]  # fmt: skip
    layers += _labels(table, x_domain, y_domain, chance)
    heading = alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal", color=style.TEXT.light)
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=heading)


def _domain(table: pandas.DataFrame, name: str, besides: Sequence[float], most: float) -> list[float]:
    """From the lowest to the highest end of an interval, with a margin."""
    ends = np.array([*table[[name, f"{name}_low", f"{name}_high"]].to_numpy(float).ravel(), *besides])
    ends = ends[np.isfinite(ends)]
    air = max(0.06 * float(ends.max() - ends.min()), 0.01)
    return [max(float(ends.min()) - air, 0.0), min(float(ends.max()) + air, most + air / 3)]


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def is_crossed(self, x: float, y: float, end: float, middle: float) -> bool:
        """Whether a straight line from (x, y) to (end, middle) passes through the box."""
        steps = np.linspace(0, 1, 33)
        across, down = x + steps * (end - x), y + steps * (middle - y)
        inside = (across > self.left) & (across < self.right) & (down > self.top) & (down < self.bottom)
        return bool(inside.any())


def place_labels(
    places: Sequence[tuple[float, float]],
    widths: Sequence[float],
    best: Sequence[bool] = (),
    points: Sequence[tuple[float, float]] = (),
    level: float | None = None,
) -> list[tuple[float, float, bool] | None]:
    """Positions of labels so that none covers another label, a point or a line: x of the left end, y of the middle.

    Args:
        places: Of the points that get a label, in pixels from the top left of a panel.
        widths: Of the labels, in pixels.
        best: Which of them the line joins.
        points: Places of further points.
        level: Height of a line across the whole panel; None for none.

    Returns:
        For each label (x, y, whether it is so far off that a line must join it to its point); None where there is no
        room for it.
    """
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in (*places, *points)]
    joined_places = sorted(place for place, is_best in zip(places, best, strict=False) if is_best)
    for (x, y), (to, next_y) in itertools.pairwise(joined_places):  # up or down at the first point, then across
        taken += [_Box(x, next_y - 1, to, next_y + 1), _Box(x - 1, min(y, next_y), x + 1, max(y, next_y))]
    if level is not None:
        taken.append(_Box(0, level - 1, WIDTH, level + 1))
    labels: list[_Box] = []
    leaders: list[tuple[float, float, float, float]] = []
    positions: list[tuple[float, float, bool] | None] = [None] * len(places)
    half = _LINE / 2
    for number in sorted(range(len(places)), key=lambda n: (places[n][1], places[n][0])):
        (x, y), width = places[number], widths[number]
        tries: list[tuple[float, float, bool]] = []
        for reach in range(16):
            for way in (0.0,) if reach == 0 else (-1.0, 1.0):
                off = way * reach * _LINE * 0.75
                tries += [
                    (x + 8 + 6 * bool(reach), y + off, reach > 0),
                    (x - 8 - 6 * bool(reach) - width, y + off, reach > 0),
                ]
        for left, middle, joined in tries:
            box = _Box(left, middle - half, left + width, middle + half)
            inside = left >= 0 and box.right <= WIDTH + 60 and box.top >= -4 and box.bottom <= HEIGHT
            leader = (x, y, left if left > x else left + width, middle)
            if (
                inside
                and not any(box.meets(other) for other in (*taken, *labels))
                and not any(box.is_crossed(*other) for other in leaders)
                and not (joined and any(other.is_crossed(*leader) for other in labels))
            ):
                positions[number] = (left, middle, joined)
                labels.append(box)
                leaders += [leader] if joined else []
                break
    return positions


def _labels(table: pandas.DataFrame, x_domain: list[float], y_domain: list[float], chance: float) -> list[alt.Chart]:
    """Names beside the points, as far as there is room: of all points where they are few, else of the best."""
    across = (table["accuracy"].to_numpy(float) - x_domain[0]) / (x_domain[1] - x_domain[0])
    up = (table["risk"].to_numpy(float) - y_domain[0]) / (y_domain[1] - y_domain[0])
    places = list(zip((across * WIDTH).tolist(), ((1 - up) * HEIGHT).tolist(), strict=True))
    named = np.ones(len(table), dtype=bool)
    if len(table) > MOST_LABELS:
        named = (table["best"] | (table["kind"] == PLAIN)).to_numpy(bool)
    points = [place for place, is_named in zip(places, named, strict=True) if not is_named]
    places = [place for place, is_named in zip(places, named, strict=True) if is_named]
    table = table[named]
    widths = [_PIXELS * len(name) for name in table["name"]]
    level = (1 - (chance - y_domain[0]) / (y_domain[1] - y_domain[0])) * HEIGHT
    positions = place_labels(places, widths, table["best"].tolist(), points, level)
    layers = []
    for (x, y), width, name, position in zip(places, widths, table["name"], positions, strict=True):
        if position is None:
            continue
        left, middle, joined = position
        data = pandas.DataFrame({"name": [name]})
        if joined:
            end = left if left > x else left + width
            layers.append(
                alt.Chart(data).mark_rule(color=style.AXIS.light, strokeWidth=0.7).encode(
                    x=alt.value(x), y=alt.value(y), x2=alt.value(end), y2=alt.value(middle)
                )
            )  # fmt: skip
        before = left <= x  # it ends where its point is, and does not begin there
        text = alt.Chart(data).mark_text(
            align="right" if before else "left", baseline="middle", fontSize=11, color=style.TEXT.light
        )
        at = left + width if before else left
        layers.append(text.encode(x=alt.value(at), y=alt.value(middle), text="name:N"))
    return layers


def _caption(figure: Figure, panels: Sequence[tuple[str, pandas.DataFrame]]) -> str:
    sentences = [f"{figure.title}, with 95% intervals: best is to the right and below."]
    for title, table in panels:
        best = table[table["best"]].sort_values("accuracy")
        names = "; ".join(
            f"{row['name']} (accuracy {row['accuracy']:.3f}, "
            f"risk {estimate(row['risk'], row['risk_low'], row['risk_high'])})"
            for _, row in best.head(MOST_NAMED).iterrows()
        )
        count = int(table["targets"].sum())
        targets = f"{count:,} target{'' if count == 1 else 's'}"
        sentences.append(f"{title} ({targets}): surpassed by none: {names}.")
    sentences.append(
        "Risk is that of the strongest attack on each target, and the points on the line were chosen by the same "
        "numbers, so both are optimistic. Where intervals overlap, no difference is shown."
    )
    return " ".join(sentences)
