"""Figures and tables as files, by the suffix of their name."""

from __future__ import annotations

import html
import json
from pathlib import Path

from securitynet.analysis.figures import render
from securitynet.analysis.figures.base import Drawn, Figure
from securitynet.errors import ConfigurationError
from securitynet.files import write_atomically
from securitynet.results.export import encode_csv

SUFFIXES = (".svg", ".pdf", ".png", ".html", ".csv", ".json")


def check_suffix(path: Path) -> None:
    """Raise `ConfigurationError` unless a file of this name can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(
            f"{path.name!r} has no suffix of a known format.",
            hint=f"Use one of {', '.join(SUFFIXES)}.",
        )


def read_suffix(text: str) -> str:
    """The suffix of a format that is named with or without its dot: ``png`` and ``.png`` are both ``.png``.

    Raises:
        ConfigurationError: If there is no such format.
    """
    suffix = f".{text.strip().removeprefix('.')}".lower()
    if suffix not in SUFFIXES:
        raise ConfigurationError(f"There is no format {text!r} for figures.", hint=f"Use one of {', '.join(SUFFIXES)}.")
    return suffix


def check_folder(path: Path) -> None:
    """Raise `ConfigurationError` if a path cannot be the folder of several figures."""
    if path.is_file() or path.suffix.lower() in SUFFIXES:
        raise ConfigurationError(f"{path} is a file; `all` and --suffix need a folder.", hint="Name a folder.")


def write_figure(figure: Figure, drawn: Drawn, path: Path) -> None:
    """Write a figure; the file is whole or absent.

    ``.csv`` holds the data that is drawn, ``.json`` the Vega-Lite specification, ``.html`` a page of its own with the
    caption and, below it, what was computed.

    Args:
        figure: The declaration of the figure.
        drawn: What to write.
        path: The file; its suffix decides the format.

    Raises:
        ConfigurationError: If the suffix is unknown, or the format can't hold a table.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if drawn.chart is None and suffix not in (".csv", ".html"):
        raise ConfigurationError(f"{figure.name} is a table.", hint="Write it as .csv or .html.")
    with write_atomically(path) as stream:
        stream.write(_content(figure, drawn, suffix))


def render_figure_page(figure: Figure, drawn: Drawn) -> str:
    """A page of one figure or table, which loads nothing."""
    shown = "" if drawn.chart is None else render.to_svg(drawn.chart)
    table = drawn.data if drawn.chart is None else drawn.statistics
    numbers = "" if table.empty else table.to_html(index=False, border=0, float_format=lambda value: f"{value:.4g}")
    title = html.escape(figure.title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#16202a}"
        "svg{max-width:100%;height:auto}table{border-collapse:collapse;font-size:.85rem}"
        "th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #dfe3e7}</style></head>\n"
        f"<body><h1>{title}</h1>\n<p>{html.escape(figure.source)}</p>\n<figure>{shown}"
        f"<figcaption>{html.escape(drawn.caption)}</figcaption></figure>\n{numbers}</body></html>\n"
    )


def _content(figure: Figure, drawn: Drawn, suffix: str) -> bytes:
    if suffix == ".csv":
        columns = [name for name in drawn.data.columns if not str(name).startswith("_")]
        return encode_csv(drawn.data[columns])
    if suffix == ".html":
        return render_figure_page(figure, drawn).encode("utf-8")
    assert drawn.chart is not None  # `write_figure` has raised otherwise
    if suffix == ".svg":
        return render.to_svg(drawn.chart).encode("utf-8")
    if suffix == ".pdf":
        return render.to_pdf(drawn.chart)
    if suffix == ".png":
        return render.to_png(drawn.chart)
    return json.dumps(drawn.chart.to_dict(validate=False), indent=1, default=str).encode("utf-8")
