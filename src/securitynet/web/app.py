"""`create_app`: the web page and the JSON API as one FastAPI application."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio.to_thread
import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

import securitynet.catalog
from securitynet.analysis import tokens
from securitynet.catalog.catalog import Catalog
from securitynet.errors import MissingExtra, SecurityNetError
from securitynet.template_cache import TemplateCache
from securitynet.version import __version__
from securitynet.web import api, labels, leaderboard, pages
from securitynet.web.results import Results
from securitynet.web.search import Search
from securitynet.web.security import AccessControl
from securitynet.web.site import Site, get_site

_ONLY_READ = "SET default_transaction_read_only = on"
_AT_ONCE = 10
"""Requests that are worked on at a time, as many as there are connections to the database; others wait their turn."""

_PAGE_CACHE = 8192
"""Kilobytes that SQLite keeps a connection; the operating system keeps the file's pages for all of them."""

_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def create_app(
    db: str | None = None,
    *,
    studies: tuple[Path, ...] = (),
    results: Results | None = None,
    token: str | None = None,
    names: frozenset[str] | None = _NAMES,
) -> FastAPI:
    """The application; the catalog's columns are read in the background, and the pages that need them wait.

    Args:
        db: The catalog's database; the user's own by default.
        studies: Folders of studies, or folders of those.
        results: The folder of results of which the leaderboard is made.
        token: What a visitor must show; needed where the page can be reached from other machines.
        names: Names under which it may be asked for; None for any, which is safe with a token only.

    Raises:
        CatalogError: If the database cannot be opened.
        MissingExtra: If htmx is not installed.
        ValueError: If neither names nor a token are given.
    """
    if names is None and token is None:
        raise ValueError("a server that answers to any name needs a token")
    catalog = securitynet.catalog.open(db)
    _only_read(catalog)
    app = FastAPI(
        title="SecurityNet catalog",
        version=__version__,
        description="Annotated public image classifiers and what was measured on them. Read-only.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_limited,
    )
    app.state.site = Site(Search(catalog), _templates(), tuple(studies), _assets(), results)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.include_router(leaderboard.router)
    app.add_exception_handler(SecurityNetError, _show_error)
    app.add_exception_handler(HTTPException, _show_error)
    app.add_exception_handler(RequestValidationError, _show_error)
    app.add_middleware(AccessControl, token=token, names=names)
    return app


@contextlib.asynccontextmanager
async def _limited(_app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _AT_ONCE
    yield


def _only_read(catalog: Catalog) -> None:
    """From here on, the database itself refuses to be written to."""
    engine = catalog.database.engine
    engine.dispose()
    sqlite = catalog.database.sqlite
    commands = ("PRAGMA query_only=ON", f"PRAGMA cache_size={-_PAGE_CACHE}") if sqlite else (_ONLY_READ,)

    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for command in commands:
            cursor.execute(command)
        cursor.close()
        if not sqlite:
            connection.commit()

    sa.event.listen(engine, "connect", prepare)


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("securitynet.web"),
        bytecode_cache=TemplateCache(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["shell"] = shlex.quote  # for commands that a visitor may copy
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)  # translated now, and not while the first visitor waits
    environment.globals |= labels.GLOBALS | {"version": __version__}
    return environment


def _assets() -> dict[str, tuple[bytes, str]]:
    own = files("securitynet.web") / "static"
    assets = {
        name: ((own / name).read_bytes(), kind)
        for name, kind in (("web.css", "text/css"), ("web.js", "text/javascript"), ("icon.svg", "image/svg+xml"))
    }
    style, kind = assets["web.css"]
    assets["web.css"] = (tokens.CSS.encode() + style, kind)
    try:
        # Only the package's place is needed: Django itself is never imported.
        htmx = files("django_htmx") / "static" / "django_htmx" / "htmx-2.min.js"
    except ModuleNotFoundError:
        raise MissingExtra("django-htmx", "web", "The web page") from None
    assets["htmx.js"] = (htmx.read_bytes(), "text/javascript")
    return assets


async def _show_error(request: Request, error: Exception) -> Response:
    """What is wrong, as JSON or as a page."""
    status, message, hint = 400, "", None
    headers = getattr(error, "headers", None)  # Allow, of a method that is not
    if isinstance(error, SecurityNetError):
        message, hint = error.message, error.hint
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
    elif isinstance(error, RequestValidationError):
        status = 422
        message = "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in error.errors()[:5])
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": message, "hint": hint}, status_code=status, headers=headers)
    page = (
        get_site(request)
        .templates.get_template("error.html")
        .render(here="", title="Not found" if status == 404 else "That does not work", message=message, hint=hint)
    )
    return HTMLResponse(page, status_code=status, headers=headers)
