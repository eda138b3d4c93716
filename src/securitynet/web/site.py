"""What the pages of one application share: the search, the templates, the studies, the results, the static files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from jinja2 import Environment

from securitynet.web.results import Results
from securitynet.web.search import Search


@dataclass(frozen=True)
class Site:
    """What the pages need.

    Attributes:
        search: Of the catalog.
        templates: Of the pages.
        roots: Folders of studies.
        assets: Name -> content and kind of the files under ``/static``.
        results: The folder of results; None if none was given.
    """

    search: Search
    templates: Environment
    roots: tuple[Path, ...]
    assets: dict[str, tuple[bytes, str]]
    results: Results | None = None


def get_site(request: Request) -> Site:
    """The site of the application that received a request."""
    site: Site = request.app.state.site
    return site
