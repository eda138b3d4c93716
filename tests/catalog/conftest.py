"""Catalogs to test with, on both kinds of database."""

from catalog_databases import catalog, postgres_server, published, sqlite_catalog, url

__all__ = ["catalog", "postgres_server", "published", "sqlite_catalog", "url"]
