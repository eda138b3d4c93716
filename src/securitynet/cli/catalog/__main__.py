"""`python -m securitynet.cli.catalog` is `securitynet catalog`."""

from __future__ import annotations

import sys

from securitynet.cli.main import main

sys.argv.insert(1, "catalog")
main()
