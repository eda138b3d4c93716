"""The setting of the C library's memory takes effect, and only in processes of our own."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from command_line import start_script

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="the setting is glibc's, and so is what shows it",
)

RECORD = """
import ctypes, json, sys
calls = []
class Recorder(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "mallopt":
            calls.append(name)
        return super().__getattr__(name)
ctypes.CDLL = Recorder
"""


def run(code, **environment):
    """What a fresh process prints as its last line, as JSON; nothing of this process's own settings reaches it."""
    own = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES" and "MALLOC_" not in name}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=own | environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


MAPPED = """
import ctypes, json
from securitynet.memory import keep_freed_memory
class Information(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
library = ctypes.CDLL(None)
library.mallinfo2.restype, library.malloc.restype = Information, ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
keep_freed_memory()
before = library.mallinfo2().hblks
library.malloc(8 << 20)
print(json.dumps(library.mallinfo2().hblks - before))
"""


def test_large_blocks_come_from_memory_that_is_kept():
    """By default glibc maps 8 MiB from the system apart, and unmaps them when they are freed."""
    assert run(MAPPED) == 0


@pytest.mark.parametrize("own", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_settings_of_the_users_own_are_left_alone(own):
    assert run(MAPPED, **own) == 1


def test_a_library_changes_nothing_in_the_process_of_who_imports_it():
    code = """
import importlib, pkgutil
import securitynet, torch
for module in pkgutil.walk_packages(securitynet.models.__path__, "securitynet.models."):
    importlib.import_module(module.name)
from securitynet.models.targets.threads import NetworkThreads, share_thread_pool
network = torch.nn.Linear(4, 3).requires_grad_(False)
NetworkThreads(network, 2).map(lambda layer, part: layer(part), torch.rand(8, 4), 2)
share_thread_pool(2)
securitynet.assess, securitynet.train, securitynet.load_target
print(json.dumps(len(calls)))
"""
    assert run(RECORD + code.replace("import securitynet, torch", "import securitynet.models, torch")) == 0


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        pytest.param(["assess", "arch:absent", "--dataset", "digits"], True, marks=pytest.mark.slow),
        (["train", "absent", "--dataset", "digits"], True),
        (["list", "defenses"], False),
    ],
)
def test_the_command_line_changes_it_where_networks_run(arguments, changes, tmp_path, monkeypatch):
    for name in list(os.environ):
        if name == "GLIBC_TUNABLES" or "MALLOC_" in name:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    code = """
from securitynet.cli.main import main
try:
    main()
except SystemExit:
    pass
print()
print(json.dumps(len(calls)))
"""
    with start_script(RECORD + code, *arguments) as process:
        assert (json.loads(process.stdout.readlines()[-1]) > 0) is changes
