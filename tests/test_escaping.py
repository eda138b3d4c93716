"""Texts of others neither command a terminal nor compute in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from securitynet.catalog.export import as_csv
from securitynet.cli.main import main
from securitynet.escaping import escape_controls, escape_formula, escape_json_controls, unescape_formula
from securitynet.results.export import encode_csv
from securitynet.terminal import SafeConsole


def test_controls_become_visible_and_text_stays():
    assert escape_controls("a\x1b[2J\x9b5m\rb\x07") == "a\\x1b[2J\\x9b5m\\x0db\\x07"
    assert escape_controls("\u202egnp.exe") == "\\u202egnp.exe"
    assert escape_controls("naïve 猫\tRésumé\n") == "naïve 猫\tRésumé\n"


def test_json_keeps_its_content():
    value = {"name": "a\x7f\x9b\u202e", "number": [1, None]}
    text = escape_json_controls(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value and not set(text) & set("\x7f\x9b\u202e")


def test_no_way_through_the_console():
    hostile = "\x1b]52;c;ZXZpbA==\x07\x9b2J\x1b[31mred"
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=True, width=200, highlight=False)
    table = Table(hostile)
    table.add_row(hostile)
    console.print(hostile, markup=False)
    console.print(table)
    console.print(f"[bold]{hostile}[/]")
    console.out(hostile)
    written = stream.getvalue()
    assert "\x1b]52" not in written and "\x9b" not in written and "\x07" not in written
    assert "\x1b[31m" not in written and written.count("31mred") == 3
    assert "\x1b[1m" in written  # rich's own styles pass


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "'=1", "''@x"])
def test_formulas_are_texts(text):
    assert escape_formula(text) == f"'{text}" and unescape_formula(f"'{text}") == text


@pytest.mark.parametrize("text", ["-0.5", "+1e-3", "resnet", "'quoted'", "", "a=b"])
def test_other_cells_stay(text):
    assert escape_formula(text) == text == unescape_formula(text)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="'=+-@\t\r1.ea"))
def test_every_cell_can_be_read_back(text):
    assert unescape_formula(escape_formula(text)) == text


def test_tables_hold_no_formula():
    record = {"name": "=cmd|calc", "elements": ["@a", "b"], "claimed_accuracy": 0.5, "sources": {}}
    rows = list(csv.reader(io.StringIO(as_csv([record]))))
    cells = dict(zip(rows[0], rows[1], strict=True))
    assert (cells["name"], cells["claimed_accuracy"]) == ("'=cmd|calc", "0.5")
    frame = pandas.DataFrame({"name": ["+x", "y"], "value": [-1.5, 2.0]})
    assert encode_csv(frame).decode() == "name,value\n'+x,-1.5\ny,2.0\n"


def test_names_are_no_emoji():
    """A dataset ``folder:two``, followed by a colon, is rich's code of a picture."""
    stream = io.StringIO()
    console = SafeConsole(file=stream, width=100)
    table = Table("Data")
    table.add_row("folder:two: 90 members")
    console.print("folder:two: 90 members", table)
    assert stream.getvalue().count("folder:two: 90 members") == 2


def test_a_name_does_not_pretend_to_be_a_line_of_ours(capsys):
    stream = io.StringIO()
    console = SafeConsole(file=stream, width=200, highlight=False)
    console.print("\nnot read: a\nerror: b.pth", markup=False, soft_wrap=True)
    assert stream.getvalue() == "\nnot read: a\\nerror: b.pth\n"  # the empty line before it is ours


def test_file_names_with_line_feeds_are_one_line_of_a_scan(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a\nerror: evil.pth").write_bytes(b"x" * 2000)
    monkeypatch.setattr("sys.argv", ["securitynet", "catalog", "scan", str(folder), "--db", f"sqlite:///{tmp_path}/c"])
    with pytest.raises(SystemExit):
        main()
    written = capsys.readouterr()
    assert "a\\nerror: evil.pth" in written.out + written.err
    assert not any(line.startswith("error") for line in (written.out + written.err).splitlines())
