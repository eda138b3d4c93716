"""The figures and tables of the ML-Doctor paper, declared."""

from __future__ import annotations

from collections.abc import Callable

import pandas

from securitynet.analysis import frames
from securitynet.analysis import quantities as q
from securitynet.analysis.figures import defenses, galleries, performance, points, tables
from securitynet.analysis.figures.base import WITHOUT_BACKDOOR, Figure
from securitynet.analysis.ml_doctor_quantities import (
    ATTRIBUTE,
    BEST,
    EVERY,
    INVERSION,
    JUDGED,
    MEMBERSHIP,
    STEALING,
)

PAIRS = (
    ("black_shadow", "stealing_shadow"),
    ("black_partial", "stealing_partial"),
    ("white_shadow", "attribute_shadow"),
    ("white_partial", "attribute_partial"),
    ("white_shadow", "inversion_accuracy"),
    ("attribute_shadow", "inversion_accuracy"),
)

UNDEFENDED: dict[str, tuple[str | None, ...]] = {"defense": (None,), **WITHOUT_BACKDOOR}
"""Restriction of all figures but Tables 3 to 5: where some targets have a defense, those without."""


def need_defense(defense: str) -> Callable[[pandas.DataFrame], list[str]]:
    """Says that no target with a defense is there."""

    def check(tidy: pandas.DataFrame) -> list[str]:
        return [] if (tidy["defense"] == defense).any() else [f"a target with the defense {defense}"]

    return check


def check_defenses(tidy: pandas.DataFrame) -> list[str]:
    """Says that no target with any defense is there."""
    return [] if tidy["defense"].notna().any() else ["a target with a defense"]


def need_several_epochs(tidy: pandas.DataFrame) -> list[str]:
    """Says that no targets differ in their number of epochs alone, so that nothing can be seen of it."""
    rows = frames.prefer_rows(tidy, UNDEFENDED, ())
    lengths = rows.groupby(["dataset", "architecture"], dropna=False)["epochs"].nunique()
    return [] if lengths.gt(1).any() else ["targets of one architecture, trained for several numbers of epochs"]


FIGURES = [
    Figure("ml-doctor-2", "Membership inference by threat model", "ML-Doctor, Figure 2", MEMBERSHIP, performance.draw,
           optional=tuple(MEMBERSHIP), restrict=UNDEFENDED),
    Figure("ml-doctor-3", "Model inversion by threat model", "ML-Doctor, Figure 3", INVERSION, performance.draw,
           optional=tuple(INVERSION), options={"panel": "condition", "colour": "dataset"}, restrict=UNDEFENDED),
    Figure("ml-doctor-4", "Images that model inversion reconstructs", "ML-Doctor, Figure 4", {}, galleries.draw,
           options={"methods": ("fredrikson", "generative"), "pictures": True}, restrict=UNDEFENDED,
           check=galleries.need_pictures(("fredrikson", "generative"))),
    Figure("ml-doctor-5", "Attribute inference by threat model", "ML-Doctor, Figure 5", ATTRIBUTE, performance.draw,
           optional=tuple(ATTRIBUTE), restrict=UNDEFENDED, options={"each_attribute": True}),
    Figure("ml-doctor-6", "Model stealing by threat model", "ML-Doctor, Figure 6", STEALING, performance.draw,
           optional=tuple(STEALING), restrict=UNDEFENDED),
    Figure("ml-doctor-7", "Attacks by dataset", "ML-Doctor, Figure 7", BEST, performance.draw, optional=tuple(BEST),
           options={"x": "dataset", "panel": "condition", "colour": "architecture", "easiest_first": True,
                    "each_attribute": True},
           restrict=UNDEFENDED),
    Figure("ml-doctor-8", "Attacks by overfitting level", "ML-Doctor, Figure 8",
           {"overfitting": q.OVERFITTING, **BEST}, points.draw, optional=tuple(BEST), restrict=UNDEFENDED,
           options={"each_attribute": True}),
    Figure("ml-doctor-9", "Attacks by number of epochs", "ML-Doctor, Figure 9", BEST, performance.draw,
           optional=tuple(BEST),
           options={"x": "epochs", "panel": "condition", "colour": "dataset", "ordered": True, "each_attribute": True},
           restrict=UNDEFENDED, check=need_several_epochs),
    Figure("ml-doctor-10", "Attacks against each other", "ML-Doctor, Figure 10",
           {name: EVERY[name] for name in dict.fromkeys(sum(PAIRS, ()))}, points.draw,
           optional=tuple(dict.fromkeys(sum(PAIRS, ()))), options={"pairs": PAIRS, "each_attribute": True},
           restrict=UNDEFENDED),
    Figure("ml-doctor-table-2", "Accuracy of the targets", "ML-Doctor, Table 2",
           {"train": q.TRAIN_ACCURACY, "test": q.TARGET_ACCURACY}, tables.draw,
           options={"rows": ["architecture"], "columns": ["dataset", "condition"]}, restrict=UNDEFENDED),
    Figure("ml-doctor-table-3", "Attacks with and without DP-SGD", "ML-Doctor, Table 3", JUDGED, defenses.draw_attacks,
           WITHOUT_BACKDOOR, optional=tuple(JUDGED), options={"defense": "dp-sgd", "each_attribute": True},
           check=need_defense("dp-sgd")),
    Figure("ml-doctor-table-4", "Attacks with and without distillation", "ML-Doctor, Table 4", JUDGED,
           defenses.draw_attacks, WITHOUT_BACKDOOR, optional=tuple(JUDGED),
           options={"defense": "distillation", "each_attribute": True}, check=need_defense("distillation")),
    Figure("ml-doctor-table-5", "Utility of targets with a defense", "ML-Doctor, Table 5",
           {"test": q.TARGET_ACCURACY, "worst_10": q.WORST_RECORDS["worst_10"]}, defenses.draw_utility,
           WITHOUT_BACKDOOR, optional=("worst_10",), check=check_defenses),
]  # fmt: skip
