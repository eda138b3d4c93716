"""What the audit of the pins says: vulnerable, checked, or not looked up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "report_vulnerabilities.py"
FLAW = {"id": "PYSEC-2021-66", "fix_versions": ["2.11.3"], "aliases": [], "description": ""}
OLD = {"name": "jinja2", "version": "2.10", "vulns": [FLAW]}
SOUND = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}


@pytest.mark.parametrize(
    ("packages", "control", "code", "words"),
    [
        ([SOUND, OLD], [OLD], 1, "jinja2 2.10: PYSEC-2021-66, fixed in 2.11.3\nPackages with known vulnerabilities: 1"),
        ([SOUND, OLD], [], 1, "PYSEC-2021-66"),
        (
            [SOUND, SKIPPED],
            [OLD],
            0,
            "1 of 2 packages were checked: no known vulnerabilities.\nNot checked: Dependency",
        ),
        ([SKIPPED], [SKIPPED], 0, "did not answer: nothing was checked"),
        ([SOUND], [SOUND], 0, "did not answer: nothing was checked"),
        (None, None, 0, "did not answer: nothing was checked"),
    ],
)
def test_the_report_on_vulnerabilities(tmp_path, packages, control, code, words):
    for name, content in (("answer", packages), ("control", control)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps({"dependencies": content, "fixes": []}))
    command = [sys.executable, TOOL, tmp_path / "answer", tmp_path / "control"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code and words in done.stdout
