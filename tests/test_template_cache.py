"""Translated templates: kept where Python keeps bytecode, and made again when they are damaged or out of date."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, compiler

from securitynet.template_cache import TemplateCache


@pytest.fixture
def render(tmp_path, monkeypatch):
    """Renders a template in a new environment; ``translated`` counts translations."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    generate, calls = compiler.generate, []
    monkeypatch.setattr("jinja2.environment.generate", lambda *a, **k: calls.append(1) or generate(*a, **k))

    def call(text: str | None = None) -> str:
        if text is not None:
            (tmp_path / "page.html").write_text(text)
        environment = Environment(loader=FileSystemLoader(tmp_path), bytecode_cache=TemplateCache())
        return environment.get_template("page.html").render(name="Ann")

    call.translated = calls
    call.file = Path(importlib.util.cache_from_source(str(tmp_path / "page.html.py")))
    return call


def test_a_template_is_translated_once_until_it_changes(render):
    assert render("Hello {{ name }}") == "Hello Ann" and len(render.translated) == 1
    assert render() == "Hello Ann" and len(render.translated) == 1
    assert render("Bye {{ name }}") == "Bye Ann" and len(render.translated) == 2
    assert render() == "Bye Ann" and len(render.translated) == 2


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-9], lambda data: b"x" * len(data)])
def test_a_damaged_file_is_made_again(render, change):
    render("Hello {{ name }}")
    render.file.write_bytes(change(render.file.read_bytes()))
    assert render() == "Hello Ann" and len(render.translated) == 2
    assert render() == "Hello Ann" and len(render.translated) == 2


def test_nothing_is_written_where_python_writes_no_bytecode(render, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert render("Hello {{ name }}") == "Hello Ann" and not render.file.exists()


def test_a_folder_that_cannot_be_written_does_not_matter(render, tmp_path):
    (tmp_path / "__pycache__").write_text("a file where the folder would be")
    assert render("Hello {{ name }}") == "Hello Ann"
