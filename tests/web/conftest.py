"""A small catalog whose content is meant to break pages, and clients of the page over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import securitynet.catalog
from catalog_databases import catalog, postgres_server, sqlite_catalog, url  # noqa: F401  (both kinds of database)
from securitynet.web.app import create_app
from web_catalog import fill

LOCAL = "http://127.0.0.1:8421"


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """URL of the catalog, and the ids in it."""
    path = str(tmp_path_factory.mktemp("web") / "catalog.sqlite")
    with securitynet.catalog.open(path) as opened:
        return path, fill(opened)


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    (root / "one").mkdir()
    (root / "one" / "report.html").write_text(
        "<!DOCTYPE html><title>A &amp; B – SecurityNet study</title><p>Findings", encoding="utf-8"
    )
    (root / "two" / "trials").mkdir(parents=True)
    (root / "secret.txt").write_text("secret")
    return root


@pytest.fixture(scope="session")
def client(filled: tuple[str, list[str]], study_folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(filled[0], studies=(study_folder,)), base_url=LOCAL, follow_redirects=False) as opened:
        yield opened
