"""`write_report`: one self-contained HTML file on one target, or on several with a comparison first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from securitynet.analysis import tokens
from securitynet.analysis.figures import style
from securitynet.files import write_atomically
from securitynet.reports.comparison import compare_targets
from securitynet.reports.families import membership
from securitynet.reports.grades import describe_table
from securitynet.reports.labels import make_distinct
from securitynet.reports.sections import make_section
from securitynet.results.document import ResultDocument
from securitynet.template_cache import TemplateCache

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment


def write_report(
    documents: Sequence[ResultDocument], assessments: Sequence[Assessment], path: Path, title: str | None = None
) -> Path:
    """Write the report; the file is whole or absent.

    Args:
        documents: The results, one per target.
        assessments: The same targets with raw outputs and images, in the same order.
        path: Of the HTML file.
        title: Heading of the page; by default it says what was assessed.

    Returns:
        ``path``.

    Raises:
        ValueError: If there is nothing to report, or the lists differ in length.
    """
    page = render_report(documents, assessments, title)
    with write_atomically(path) as stream:
        stream.write(page.encode("utf-8"))
    return path


def render_report(
    documents: Sequence[ResultDocument], assessments: Sequence[Assessment], title: str | None = None
) -> str:
    """Render the report as HTML.

    Args:
        documents: The results, one per target.
        assessments: The same targets with raw outputs and images, in the same order.
        title: Heading of the page; by default it says what was assessed.

    Raises:
        ValueError: If there is nothing to report, or the lists differ in length.
    """
    if not documents or len(documents) != len(assessments):
        raise ValueError(f"{len(documents)} documents for {len(assessments)} assessments")
    labels = make_distinct(documents)
    several = len(documents) > 1
    sections = [
        make_section(document, assessment, f"t{number}", label)
        for number, (document, assessment, label) in enumerate(
            zip(documents, assessments, labels, strict=True), start=1
        )
    ]
    if title is None:
        title = f"{len(documents)} targets compared" if several else labels[0]
    page: str = (
        load_templates()
        .get_template("report.html")
        .render(
            title=title,
            sections=sections,
            comparison=compare_targets(documents, assessments, labels) if several else None,
            created=max(document.created for document in documents),
            version=documents[0].environment.get("securitynet", ""),
            css=read_css(),
            degrees=[(f"{least:g}", text) for least, text in membership.DEGREES],
            slight=membership.SLIGHT,
            bounds=describe_table(documents[0]),
        )
    )
    return page


@cache
def load_templates() -> Environment:
    """The templates of reports."""
    return Environment(
        loader=PackageLoader("securitynet.reports"),
        bytecode_cache=TemplateCache(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def read_css() -> Markup:
    """The style sheet with the figures' colours, from the one place where they are declared."""
    text = resources.files("securitynet.reports").joinpath("templates/report.css").read_text(encoding="utf-8")
    light = "".join(f"--s{n}: {ink.light}; " for n, ink in enumerate(style.SERIES))
    dark = "".join(f"--s{n}: {ink.dark}; " for n, ink in enumerate(style.SERIES))
    looks = "\n".join(f".s{n} {{ --look: var(--s{n}); }}" for n in range(len(style.SERIES)))
    return Markup(
        f":root {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{\n:root {{ {dark}}}\n"
        f"{style.exchange_rules('.plot')}\n}}\n{looks}\n{tokens.CSS}{text}"
    )
