"""Where results lie: disks that fill, places that can't be written, object stores, clocks, locks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import fsspec
import pytest

from securitynet.errors import ConfigurationError, MissingExtra
from securitynet.files import add_digest
from securitynet.results.index import Index
from securitynet.results.merge import merge_results
from securitynet.results.root import FolderRoot, RemoteRoot, open_root
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetStore
from securitynet.studies.execution.inspect import inspect_study
from securitynet.studies.execution.lock import StudyRuns, find_holder, hold_study_lock
from securitynet.studies.execution.run import find_results

NUMBERS = """
[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
[attacks.grid]
number = [1, 2, 3]
"""
ONE = '[[models]]\nreference = "python:a.py:make"'

FILL = """
set -e
mkdir -p "$1"
mount -t tmpfs -o size=300k tmpfs "$1"
dd if=/dev/zero of="$1/ballast" bs=1k count=$2 status=none || true
shift 2
set +e
"$@"
echo "exit code $?"
rm "$OUT/ballast"
"$@"
echo "exit code $?"
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Where the results of the first run of this file lie, for the tests that are about results alone."""
    return tmp_path_factory.mktemp("stored") / "out"


@pytest.fixture
def finished(box, stored):
    """A box in which the study of three numbers has been run."""
    box.write(NUMBERS, models=ONE)
    if stored.exists():
        shutil.copytree(stored, box.out)
    else:
        assert box.run().ok == 3
        shutil.copytree(box.out, stored)
    return box


def in_namespace(script: str, *arguments: object, environment=None) -> subprocess.CompletedProcess[str]:
    """Run a script where it may mount."""
    command = ["unshare", "-rm", "bash", "-c", script, "-", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def needs_mounts(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` to mount a small disk with")
    tried = in_namespace(f"mkdir -p {tmp_path}/m && mount -t tmpfs -o size=64k tmpfs {tmp_path}/m")
    if tried.returncode != 0:
        pytest.skip("this system lets nobody mount a small disk")


@pytest.mark.slow
def test_a_full_disk_stops_the_study_and_loses_nothing(box, tmp_path):
    needs_mounts(tmp_path)
    box.write(NUMBERS.replace("[1, 2, 3]", str(list(range(20)))), models=ONE)
    command = box.command("run", box.folder / "study.toml", "--out", box.out, "--workers", 1, "--threads", 1, "--db",
                          f"sqlite:///{tmp_path}/index.sqlite")  # fmt: skip
    done = in_namespace(FILL, box.out, 240, *command, environment={**box.environment, "OUT": str(box.out)})
    assert "exit code 1" in done.stdout and "nothing can be written" in done.stderr, done.stderr
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
    # With space again, only what was missing runs.
    assert done.stdout.rstrip().endswith("exit code 0")
    assert len(box.log("ran")) <= 21


def test_a_file_in_place_of_a_folder_is_an_error_before_work(box):
    box.write(NUMBERS, models=ONE)
    box.out = box.folder / "study.toml" / "below-a-file"
    with pytest.raises(ConfigurationError, match="is a file"):
        box.run()


def test_results_go_to_object_stores_by_url(box, tmp_path):
    """`file://` goes through fsspec, like any URL; a second run reads from there."""
    box.write(NUMBERS, models=ONE)
    box.out = f"file://{tmp_path}/remote"
    first = box.run()
    assert (first.ok, first.finished_now) == (3, 3)
    root = open_root(box.out)
    assert isinstance(root, RemoteRoot) and len(list(TrialStore(root))) == 3 and len(list(StudyTargetStore(root))) == 1
    assert not list((tmp_path / "remote").rglob("*.tmp"))
    again = box.run()
    assert (again.ok, again.finished_now) == (3, 0)
    assert inspect_study(find_results(box.out)).ok == 3


@pytest.mark.parametrize("kind", ["folder", "memory", "file"])
def test_roots(tmp_path, kind):
    place = {"folder": str(tmp_path / "r"), "memory": "memory://results/r", "file": f"file://{tmp_path}/r"}[kind]
    root = open_root(place)
    with pytest.raises(FileNotFoundError):
        root.read("a/x.json")
    assert list(root.files("a", ".json")) == []
    root.write("a/x.json", b"1")
    root.write("a/b/y.json", b"2")
    root.write("a/b/z.npz", b"3")
    first = dict(root.files("a", ".json"))
    assert set(first) == {"a/x.json", "a/b/y.json"}
    root.write("a/x.json", b"4")
    second = dict(root.files("a", ".json"))
    assert root.read("a/x.json") == b"4"
    assert second["a/b/y.json"] == first["a/b/y.json"] and second["a/x.json"] != first["a/x.json"]
    assert root.set_aside("a/x.json") != root.set_aside("a/b/y.json")
    root.write("a/x.json", b"5")
    assert root.read(root.set_aside("a/x.json")) == b"5"
    root.remove("a/b/z.npz")
    root.remove("a/b/z.npz")
    assert not root.exists("a/b/z.npz")
    if kind == "memory":
        fsspec.filesystem("memory").rm("/results", recursive=True)


def test_a_store_whose_package_is_absent_is_told():
    with pytest.raises((MissingExtra, ConfigurationError)) as told:
        open_root("nosuchstore://bucket/results")
    assert "nosuchstore" in str(told.value)


def test_merging_prefers_what_finished_and_tells_of_contradictions(finished, make_box, tmp_path):
    box = finished
    other = make_box("other")
    other.write(NUMBERS.replace("[1, 2, 3]", "[3, 4]"), models=ONE)
    other.run()
    into = FolderRoot(tmp_path / "merged")
    found = merge_results([FolderRoot(box.out), FolderRoot(other.out)], into)
    assert (found.trials, found.targets, found.present, found.conflicts) == (4, 1, 2, [])
    assert merge_results([FolderRoot(box.out)], into).trials == 0
    # One source says otherwise of a trial that both finished; a damaged file is named.
    victim = sorted((other.out / "trials").rglob("*.json"))[0]
    content = json.loads(victim.read_text())
    for measurement in content["measurements"]:
        measurement["value"] = measurement["low"] = 0.0
    victim.write_text(json.dumps(add_digest(content)))
    sorted((box.out / "trials").rglob("*.json"))[0].write_text("{")
    again = merge_results([FolderRoot(box.out), FolderRoot(other.out)], into)
    assert again.conflicts == [content["id"]] and len(again.damaged) == 1
    assert all(r.status == "ok" for r in TrialStore(into))


def test_the_index_reads_only_what_has_changed_and_is_only_an_index(finished, tmp_path):
    box = finished
    root = FolderRoot(box.out)
    index = Index(tmp_path / "i.sqlite", root)
    assert (index.refresh().read, index.refresh().read) == (4, 0)
    path = sorted((box.out / "trials").rglob("*.json"))[0]
    # A clock that jumps: what counts is that the file is another one, not that it is newer.
    os.utime(path, (0, 0))
    assert index.refresh().read == 1
    path.unlink()
    assert (index.refresh().gone, len(index.trial_states())) == (1, 2)
    first = [trial.id for trial in index.trials()]
    assert index.rebuild().read == 3 and [trial.id for trial in index.trials()] == first
    index.close()


@pytest.mark.slow
def test_a_clock_that_jumps_does_no_harm(box, monkeypatch):
    box.write(NUMBERS, models=ONE)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 10**8 if int(real() * 10) % 2 else real() + 10**8)
    status = box.run(time_limit=600.0, setup_time_limit=600.0)
    assert status.ok == 3 and 0 < status.elapsed < 600


def test_the_lock_of_a_dead_runner_is_taken_and_that_of_a_living_one_is_not(tmp_path):
    root, notes = FolderRoot(tmp_path), []
    state = tmp_path / "run"
    script = (
        "import sys, time; from pathlib import Path; from securitynet.studies.execution.lock import hold_study_lock;"
        "from securitynet.results.root import FolderRoot\n"
        "with hold_study_lock(Path(sys.argv[1]) / 'run', FolderRoot(Path(sys.argv[1])), print):\n"
        "    print('mine', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "mine\n"
        assert find_holder(state)["pid"] == other.pid
        with pytest.raises(StudyRuns, match=str(other.pid)), hold_study_lock(state, root, notes.append):
            pass
    finally:
        other.kill()
        other.wait()
    assert find_holder(state) is None
    with hold_study_lock(state, root, notes.append):
        assert find_holder(state)["pid"] == os.getpid()
