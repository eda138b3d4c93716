"""The recipe of docs/catalog.md, "Adding a column", on a copy of the package: schema, migration, no more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import securitynet.catalog

ROOT = Path(__file__).parents[2]
USE = """
import sys
import securitynet.catalog
from fastapi.testclient import TestClient
from securitynet.cli.main import main
from securitynet.web.app import create_app

assert securitynet.__file__.startswith(sys.argv[2])
with securitynet.catalog.open(sys.argv[1]) as catalog:
    catalog.add({"name": "second", "quantization": "int8"})
    assert [entry.name for entry in catalog.query(quantization="any")] == ["second"]
    assert [entry.name for entry in catalog.query(quantization="none")] == ["first"]
with TestClient(create_app(sys.argv[1]), base_url="http://127.0.0.1:8421") as client:
    page = client.get("/?quantization=int8").text
    assert "<legend>weights as</legend>" in page and "second" in page and "first" not in page
    assert client.get("/api/models?quantization=int8").json()["models"][0]["quantization"] == "int8"
sys.argv = ["securitynet", "catalog", "search", "--quantization", "int8", "--db", sys.argv[1], "--output", "csv"]
main()
"""


def test_a_column_needs_a_field_and_a_migration_and_nothing_else(tmp_path: Path) -> None:
    database = str(tmp_path / "catalog.sqlite")
    with securitynet.catalog.open(database) as catalog:  # as it was before the column
        catalog.add({"name": "first"})
    copied = tmp_path / "src" / "securitynet"
    shutil.copytree(ROOT / "src" / "securitynet", copied)
    recipe = (ROOT / "docs" / "catalog.md").read_text().split("## Adding a column")[1].split("## Codebook")[0]
    field, migration = re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)
    schema = copied / "catalog" / "schema.py"
    before = "    # Claims of the publisher\n"
    assert schema.read_text().count(before) == 1
    schema.write_text(schema.read_text().replace(before, field + before))
    (copied / "catalog" / "migrations" / "versions" / "v0003_quantization.py").write_text(migration)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "SECURITYNET_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", USE, database, str(tmp_path)]
    used = subprocess.run(command, env=environment, check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    header, *rows = used.stdout.splitlines()
    assert "quantization" in header.split(",") and len(rows) == 1 and "int8" in rows[0].split(",")
