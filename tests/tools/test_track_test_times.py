"""Times of the tests by layer: sums, recorded runs, and reports that cannot be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "track_test_times.py"

REPORT = """<testsuites><testsuite>
<testcase classname="tests.analysis.test_figures" name="test_a" time="1.5"/>
<testcase classname="tests.analysis.papers.test_tables.TestRows" name="test_b[x]" time="2.0"/>
<testcase classname="tests.test_kills" name="test_c" time="0.25"/>
</testsuite></testsuites>"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_seconds_are_added_by_folder_and_recorded(tmp_path: Path) -> None:
    report, history = tmp_path / "report.xml", tmp_path / "times.csv"
    report.write_text(REPORT)
    first = run(report, "--history", history, "--record")
    assert first.returncode == 0, first.stderr
    assert [line.split() for line in first.stdout.splitlines()[1:3]] == [
        ["analysis", "2", "3.5"],
        ["tests", "1", "0.2"],
    ]
    assert "recorded" not in first.stdout
    lines = history.read_text().splitlines()
    assert lines[0] == "date,commit,machine,layer,tests,seconds" and len(lines) == 3
    report.write_text(REPORT.replace('"1.5"', '"3.5"'))
    second = run(report, "--history", history)
    assert second.stdout.splitlines()[1].split() == ["analysis", "2", "5.5", "3.5"]
    assert "recorded: 3 tests, 4 s" in second.stdout
    assert history.read_text().splitlines() == lines


@pytest.mark.parametrize(("text", "message"), [("", "cannot be read"), ("<testsuites/>", "names no tests")])
def test_a_report_without_tests_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    report = tmp_path / "report.xml"
    report.write_text(text)
    result = run(report)
    assert result.returncode == 1 and message in result.stderr and "Traceback" not in result.stderr
