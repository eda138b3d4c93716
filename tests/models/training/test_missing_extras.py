"""A small installation: what is missing is named with its extra, before any work."""

from __future__ import annotations

import importlib.util

import pytest

from securitynet.errors import MissingExtra
from securitynet.models.sources.pytorchcv import open_source
from securitynet.models.sources.references import parse_reference
from securitynet.models.training import accounting


def test_missing_packages_are_named_with_their_extras(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in hidden else found(name, *a))
    hidden = {"opacus", "pytorchcv"}
    with pytest.raises(MissingExtra, match=r"securitynet\[privacy\]"):
        accounting.check_opacus()
    with pytest.raises(MissingExtra, match=r"securitynet\[pytorchcv\]"):
        open_source(parse_reference("pytorchcv:resnet20_cifar10"))
