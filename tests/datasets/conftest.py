"""Every test here has a cache and a data folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("SECURITYNET_CACHE", str(folder / "cache"))
    monkeypatch.setenv("SECURITYNET_DATA", str(folder / "data"))


@pytest.fixture
def cache() -> Path:
    from securitynet.files import find_cache_folder

    return find_cache_folder()
