"""All numbers of both papers, beside this data's."""

from __future__ import annotations

import pandas

from securitynet.analysis.papers import ml_doctor, securitynet
from securitynet.analysis.papers.compare import Compared, compare_with_papers, describe_papers, place
from securitynet.analysis.papers.printed import Printed

RESULTS: tuple[Printed, ...] = (*securitynet.PRINTED, *ml_doctor.PRINTED)


def compare_every(tidy: pandas.DataFrame, *, database: bool = False) -> list[Compared]:
    """All printed numbers that a frame has too, those that differ first.

    Args:
        tidy: Tidy frame.
        database: Whether the frame holds a catalog, whose counts are compared with those of SecurityNet's database.
    """
    compared = compare_with_papers(RESULTS, tidy) + compare_with_papers(ml_doctor.CELLS, _without_tables(tidy))
    compared += compare_with_papers(securitynet.DATABASE, tidy) if database else []
    return sorted(compared, key=place)


def describe_for(figure: str, tidy: pandas.DataFrame) -> str:
    """What a figure's caption says about the paper's numbers; empty if it prints none that this data has.

    Args:
        figure: Name of the figure.
        tidy: The frame that it is drawn from.
    """
    results = [printed for printed in RESULTS if figure in printed.figures]
    cells = [printed for printed in ml_doctor.CELLS if figure in printed.figures]
    compared = compare_with_papers(results, tidy) if results else []
    compared += compare_with_papers(cells, _without_tables(tidy)) if cells else []
    return describe_papers(compared)


def _without_tables(tidy: pandas.DataFrame) -> pandas.DataFrame:
    """The frame without the targets of ML-Doctor's own tables, whose cells are not compared with themselves."""
    return tidy[~tidy["case"].astype(str).str.startswith(f"{ml_doctor.SOURCE}/")]
