"""Schemes of model references: declared in one file each, read without importing it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from securitynet.errors import ConfigurationError
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.schemes import BACKENDS, SCHEMES, SOURCES, SchemeRegistry
from securitynet.models.targets.backends.base import Backend

PLUGIN = """'''Answers from a table.'''

from securitynet.models.sources.schemes import Scheme

SCHEME = Scheme(
    "table",
    "table:FILE.tab",
    file=True,
    suffixes=(".tab",),
)
"""


@pytest.mark.parametrize("name", list(SCHEMES))
def test_what_is_read_as_text_is_what_the_module_declares(name):
    entry = SCHEMES.entries[name]
    module = importlib.import_module(entry.location.partition(":")[0])
    assert entry.scheme == module.SCHEME
    assert entry.scheme.form in entry.summary and not entry.summary.startswith(":")


@pytest.mark.parametrize("name", list(SCHEMES))
def test_every_scheme_opens_something(name):
    if name in BACKENDS:
        assert issubclass(BACKENDS.get(name), Backend) and BACKENDS.get(name).open is not Backend.open
    elif name != "catalog":  # which leads to another reference
        assert callable(SOURCES.get(name)) and SOURCES.entries[name].scheme.network


def test_parsing_and_listing_import_no_torch():
    code = (
        "import sys; from securitynet.models.sources.references import describe_forms, parse_reference; "
        "parse_reference('onnx:a.onnx'); print(describe_forms()); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "onnx:path.onnx" in done.stdout and done.stdout.rstrip().endswith("False")


def test_list_backends_shows_every_scheme():
    command = [sys.executable, "-m", "securitynet.cli.main", "list", "backends", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {row["name"] for row in json.loads(done.stdout)} == set(SCHEMES)


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "formats"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "helper.py").write_text("raise RuntimeError('never imported')\n")
    (root / "table.py").write_text(PLUGIN + "\nraise RuntimeError('never imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield root
    sys.modules.pop("formats", None)


def test_one_file_adds_a_scheme(package):
    entries = SchemeRegistry("source", package="formats", function="open_source").entries
    assert entries["table"].scheme.suffixes == (".tab",)
    assert entries["table"].location == "formats.table:open_source"
    assert entries["table"].summary == "Answers from a table: table:FILE.tab"


def test_a_declaration_that_is_computed_is_refused(package):
    (package / "table.py").write_text("NAME = 'table'\nSCHEME = Scheme(NAME, 'table:FILE')\n")
    with pytest.raises(ConfigurationError, match="literals"):
        _ = SchemeRegistry("source", package="formats").entries


def test_a_misspelt_field_of_a_declaration_is_named(package):
    (package / "table.py").write_text("\nSCHEME = Scheme('table', 'table:FILE', suffix='.tab')\n")
    with pytest.raises(ConfigurationError, match="suffix"):
        _ = SchemeRegistry("source", package="formats").entries


def test_a_plug_in_is_read_without_importing_its_package(tmp_path):
    root = tmp_path / "heavy"
    root.mkdir()
    (root / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    (root / "table.py").write_text(PLUGIN)
    metadata = tmp_path / "heavy-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[securitynet.backends]\ntable = heavy.table:Table\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from securitynet.models.sources.references import parse_reference\n"
        "print(parse_reference('table:a.tab').path)\n"
        "try: parse_reference('b.tab')\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("a.tab\n") and "Did you mean table:b.tab?" in done.stdout


def test_a_file_is_recognised_whatever_it_is_called(tmp_path):
    import numpy as np

    np.savez(tmp_path / "recorded.npz", posteriors=np.ones((2, 1)))
    (tmp_path / "recorded.npz").rename(tmp_path / "recorded")
    reference = parse_reference(str(tmp_path / "recorded"))
    assert (reference.scheme, reference.path) == ("outputs", tmp_path / "recorded")
    assert str(reference.without_folders()) == "outputs:recorded"


def test_an_existing_file_of_no_known_kind_is_said_to_be_one(tmp_path):
    (tmp_path / "notes").write_text("nothing")
    with pytest.raises(ConfigurationError, match="file that holds no model of a known kind"):
        parse_reference(str(tmp_path / "notes"))


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_reference("onnx:~/m.onnx").path == tmp_path / "m.onnx"
    assert parse_reference("python:~/m.py:make").path == tmp_path / "m.py"
    assert parse_reference("timm:resnet18").path is None


def test_the_docs_show_every_form():
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    assert [scheme.form for scheme in SCHEMES.schemes if scheme.form not in text] == []
