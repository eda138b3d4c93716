"""The command line where the streams are closed, or the current folder is gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-m", "securitynet", "list", "defenses")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(closed):
    """A closed stream is like /dev/null: the next opened file would take its number, and get what is printed."""
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *COMMAND], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert ("dp-sgd" in done.stdout) == (">&-" not in closed.split(" "))


def test_a_folder_that_is_gone(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    script = f'rmdir {folder}; "$@"'
    done = subprocess.run(["sh", "-c", script, "sh", *COMMAND], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("error:")) == (1, 1) and "no longer exists" in done.stderr
