"""Packages that a test needs and must not import by itself."""

from __future__ import annotations

import importlib.util

import pytest


def needs_keras() -> None:
    """Skip without Keras; to import it here, as ``importorskip`` does, would choose another back end than torch."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("the extra [keras] is not installed")
