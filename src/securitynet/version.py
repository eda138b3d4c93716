"""The version of this package, apart from its public names, so that any layer can record it."""

from __future__ import annotations

__version__ = "0.1.0"
