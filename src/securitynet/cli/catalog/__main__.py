"""`python -m securitynet.cli.catalog` is `securitynet catalog`."""

from __future__ import annotations

import sys

from securitynet.cli import main as entry_point
from securitynet.cli.catalog import app

if not any(group.name == "catalog" for group in entry_point.app.registered_groups):
    entry_point.app.add_typer(app, name="catalog")
sys.argv.insert(1, "catalog")
entry_point.main()
