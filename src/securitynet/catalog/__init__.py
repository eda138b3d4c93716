"""The catalog: a living, searchable database of annotated public models.

``securitynet.catalog.open()`` gives a `Catalog`; importing this package loads neither a database driver nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securitynet.catalog.catalog import Catalog
    from securitynet.catalog.location import using
    from securitynet.catalog.schema import CatalogEntry

__all__ = ["Catalog", "CatalogEntry", "open", "using"]

_HOMES = {
    "Catalog": "securitynet.catalog.catalog",
    "CatalogEntry": "securitynet.catalog.schema",
    "using": "securitynet.catalog.location",
}


def open(url: str | None = None) -> Catalog:
    """Open the catalog, making or migrating its tables if need be.

    Args:
        url: SQLAlchemy URL (``sqlite:///FILE``, ``postgresql://USER@HOST/NAME``) or the path of a SQLite file;
            a file in the user's data folder if not given.
    """
    from securitynet.catalog.catalog import Catalog

    return Catalog(url)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
