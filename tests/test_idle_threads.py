"""Idle threads of torch sleep soon, in processes of our own, unless the user has decided otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from securitynet.idle_threads import LOOPS, SETTINGS

COMMAND = """
import os, sys
sys.argv = ["securitynet", "list", "defenses"]
from securitynet.cli.main import main
assert "torch" not in sys.modules  # GCC's library would not read the variable any more
try:
    main()
except SystemExit:
    pass
print(os.environ.get("GOMP_SPINCOUNT"))
"""

LIBRARY = """
import os
import securitynet.models.training.fit, securitynet.models.targets.threads
print(os.environ.get("GOMP_SPINCOUNT"))
"""


def read_setting(code: str, **environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=own | environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def test_the_command_line_sets_it_before_torch_is_loaded() -> None:
    assert read_setting(COMMAND) == str(LOOPS)


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "7")])
def test_what_the_user_has_set_is_left_alone(name: str, value: str) -> None:
    assert read_setting(COMMAND, **{name: value}) == {"GOMP_SPINCOUNT": "7"}.get(name, "None")


def test_a_library_changes_nothing_in_the_process_of_who_imports_it() -> None:
    assert read_setting(LIBRARY) == "None"
