"""SecurityNet's published table as a frame, read once for all tests."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import securitynet.catalog
from securitynet.analysis import sources


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> pandas.DataFrame:
    """The values of SecurityNet's published table; skips where it is absent."""
    path = shared_data / "securitynet-database.md"
    if not path.exists():
        pytest.skip("the published tables are not beside the repository")
    url = str(tmp_path_factory.mktemp("catalog") / "c.db")
    with securitynet.catalog.open(url) as catalog:
        catalog.import_table(path)
    return sources.load_frames("catalog", db=url)
