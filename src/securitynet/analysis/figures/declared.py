"""All declared figures and tables, by name."""

from __future__ import annotations

import importlib

from securitynet.analysis.figures.base import Figure
from securitynet.errors import UnknownName

MODULES = ("securitynet", "ml_doctor", "beyond")


def list_figures() -> dict[str, Figure]:
    """Name -> figure, in the order of the papers."""
    modules = [importlib.import_module(f"securitynet.analysis.figures.{name}") for name in MODULES]
    return {figure.name: figure for module in modules for figure in module.FIGURES}


def find_figure(name: str) -> Figure:
    """One figure by its name.

    Raises:
        UnknownName: If there is none of that name.
    """
    every = list_figures()
    if name not in every:
        raise UnknownName("figure", name, set(every))
    return every[name]
