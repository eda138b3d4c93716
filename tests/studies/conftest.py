"""Shared by the tests of studies."""

from __future__ import annotations

import importlib
import os

import pytest

from study_box import PLUGIN, Box


@pytest.fixture
def plugin(monkeypatch):
    """The plug-in is installed, in this process and in those that it starts."""
    from securitynet.attacks import ATTACKS

    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN), prepend=os.pathsep)
    importlib.invalidate_caches()
    ATTACKS.__dict__.pop("entries", None)
    yield
    ATTACKS.__dict__.pop("entries", None)


@pytest.fixture
def make_box(tmp_path, monkeypatch, plugin, forked_workers):
    """Makes folders with a small study each, by name. The last one's marks are those that attacks leave."""

    def make(name: str) -> Box:
        folder = tmp_path / name
        folder.mkdir()
        made = Box(folder)
        for variable in ("NOOP_FOLDER", "SECURITYNET_CACHE", "SECURITYNET_DATA"):
            monkeypatch.setenv(variable, made.environment[variable])
        return made

    return make


@pytest.fixture
def box(make_box):
    """A folder with a small study."""
    return make_box("box")
