"""The numbers that the ML-Doctor paper (USENIX Security 2022) prints: Tables 2 to 5, and those in its text.

`read_tables` gives the tables as measured values, so that claims, correlations and figures are computed from the
paper's own columns.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import pandas

from securitynet.analysis import frames
from securitynet.analysis import quantities as q
from securitynet.analysis.frames import Quantity
from securitynet.analysis.hypotheses.correlations import correlate
from securitynet.analysis.hypotheses.shares import average
from securitynet.analysis.ml_doctor_quantities import EVERY, MEMBERSHIP, STEALING
from securitynet.analysis.papers.printed import Printed
from securitynet.catalog.known import complete_entry

DATASETS = ("CelebA", "Fashion-MNIST", "STL-10", "UTKFace")
SOURCE = "ml-doctor"
"""Name of the tables as a source of data."""

_TARGET = {"train": q.TRAIN_ACCURACY, "test": q.TARGET_ACCURACY}
_QUANTITIES = {**_TARGET, **EVERY}
_FIGURES = {"Table 2": "ml-doctor-table-2", "Table 3": "ml-doctor-table-3", "Table 4": "ml-doctor-table-4",
            "Table 5": "ml-doctor-table-5"}  # fmt: skip
_IN_FIGURES = {"membership": "ml-doctor-2", "inversion": "ml-doctor-3", "attribute": "ml-doctor-5",
               "stealing": "ml-doctor-6"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        where: The table, or the section of the text.
        dataset: As the catalog spells it.
        architecture: Of the target.
        defense: ``dp-sgd``, ``distillation`` or None.
        setting: Of DP-SGD, one of two for each dataset: ``setting 1`` or ``setting 2``.
        quantity: Name in `securitynet.analysis.ml_doctor_quantities`; or ``train``, ``test``, ``epsilon``.
        value: As printed, with two digits after the point.
    """

    where: str
    dataset: str
    architecture: str
    defense: str | None
    setting: str | None
    quantity: str
    value: float

    @property
    def case(self) -> str:
        """The target."""
        return "/".join(filter(None, (SOURCE, self.dataset, self.architecture, self.defense, self.setting)))


@cache
def read_cells() -> tuple[Cell, ...]:
    """All cells of Tables 2 to 5, and the values of attacks in the text."""
    text = files("securitynet.analysis.papers").joinpath("ml_doctor.csv").read_text(encoding="utf-8")
    cells = []
    for row in csv.DictReader(text.splitlines()):
        defense, _, number = row["defense"].partition(" ")
        for dataset in DATASETS:
            if row[dataset]:
                cells.append(
                    Cell(row["where"], dataset, row["architecture"], defense or None,
                         f"setting {number}" if number else None, row["quantity"], float(row[dataset]))
                )  # fmt: skip
    return tuple(cells)


def read_tables() -> pandas.DataFrame:
    """Tables 2 to 5 as a tidy frame: one case per target, values without intervals."""
    cells = [cell for cell in read_cells() if cell.where.startswith("Table")]
    rows: list[dict[str, Any]] = []
    epsilons = {cell.case: cell.value for cell in cells if cell.quantity == "epsilon"}
    accuracies: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.quantity == "epsilon":
            continue
        case = _describe(cell) | {"epsilon": epsilons.get(cell.case)}
        rows.append(case | _how(_QUANTITIES[cell.quantity]) | {"value": cell.value})
        if cell.quantity in _TARGET:
            accuracies.setdefault(cell.case, case)[cell.quantity] = cell.value
    for case in accuracies.values():
        if _TARGET.keys() <= case.keys():
            gap = round(case["train"] - case["test"], 2)
            about = {name: value for name, value in case.items() if name not in _TARGET}
            rows.append(about | _how(q.OVERFITTING) | {"value": gap})
    return frames.tidy(rows)


def _describe(cell: Cell) -> dict[str, Any]:
    """What is known about a target, by the columns of a tidy frame."""
    entry, _ = complete_entry({"key": cell.case, "source": SOURCE, "name": cell.case, "architecture": cell.architecture,
                          "dataset": cell.dataset})  # fmt: skip
    annotations = {name: getattr(entry, name) for name in frames.ANNOTATIONS}
    annotations["family"] = annotations["family"] or cell.architecture
    about = {name: list(value) if isinstance(value, tuple) else value for name, value in annotations.items()}
    teacher = "vgg19" if cell.defense == "distillation" else None
    condition = {"defense": cell.defense, "setting": cell.setting, "teacher": teacher, "epochs": 300}
    return {"case": cell.case, "model": f"{cell.architecture} (published)", **about, **condition}


def _how(quantity: Quantity) -> dict[str, Any]:
    """The columns of a tidy frame that a quantity selects."""
    how = {column: next(value for value in values) for column, values in quantity.where.items()}
    return {**how, "measure": quantity.measure[0], "settings": "{}"}


def _cell_printed(cell: Cell) -> Printed:
    what = {"train": "Training accuracy", "test": "Test accuracy", "epsilon": "Epsilon of DP-SGD"}.get(cell.quantity)
    what = what or EVERY[cell.quantity].label
    defense = f" with {cell.defense}{f', {cell.setting}' if cell.setting else ''}" if cell.defense else ""
    name = "/".join(filter(None, (cell.where, cell.dataset, cell.architecture, cell.defense, cell.setting,
                                  cell.quantity)))  # fmt: skip
    only: dict[str, tuple[str | None, ...]] = {
        "dataset": (cell.dataset,), "architecture": (cell.architecture,), "defense": (cell.defense,),
        **({"setting": (cell.setting,)} if cell.setting else {}),
    }  # fmt: skip
    attack = next(iter(_QUANTITIES[cell.quantity].where["attack"])) if cell.quantity in EVERY else None
    shown = [_FIGURES[cell.where]] if cell.where in _FIGURES else []
    shown += [_IN_FIGURES[str(attack)]] if attack is not None and cell.defense is None else []
    quantities = {"y": q.TARGET_ACCURACY if cell.quantity == "epsilon" else _QUANTITIES[cell.quantity]}
    return Printed(name, "ML-Doctor", cell.where, f"{what}, {cell.architecture}, {cell.dataset}{defense}",
                   "mean over five runs", cell.value, 2, quantities,
                   average("epsilon" if cell.quantity == "epsilon" else "y"), only, with_defenses=True,
                   figures=tuple(shown))  # fmt: skip


CELLS = [_cell_printed(cell) for cell in read_cells()]

PRINTED = [
    Printed("membership-stealing", "ML-Doctor", "section 6.4, Figure 10",
            "Membership × stealing, black-box, shadow data", "Pearson's r, pooled over four datasets", -0.90, 2,
            {"x": MEMBERSHIP["black_shadow"], "y": STEALING["stealing_shadow"]},
            correlate("x", "y", estimand="pooled"), {"dataset": DATASETS}, figures=("ml-doctor-10",)),
]  # fmt: skip
