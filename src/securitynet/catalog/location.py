"""Where the catalog's database is: in the user's data folder, unless a command or a program says otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from securitynet.files import find_data_folder

_chosen: ContextVar[str | None] = ContextVar("catalog", default=None)


def find_default_url() -> str:
    """The database that `using` chose; else a SQLite file in the user's data folder."""
    return _chosen.get() or f"sqlite:///{find_data_folder() / 'catalog.sqlite'}"


def is_database_missing(url: str) -> bool:
    """Whether a URL or path names a SQLite file that does not exist, so that there is no catalog yet."""
    path = url.removeprefix("sqlite:///")
    return "://" not in path and not Path(path).exists()


@contextlib.contextmanager
def using(url: str | None) -> Iterator[None]:
    """Let ``catalog:`` references mean entries of another database, inside the block.

    Args:
        url: SQLAlchemy URL, or the path of a SQLite file; None changes nothing.
    """
    token = _chosen.set(url or _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(token)
