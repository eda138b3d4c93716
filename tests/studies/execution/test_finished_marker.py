"""The marker of a finished run stands for that run only, and for nothing that has changed since."""

from __future__ import annotations

import json

import pytest

from securitynet.files import parse_toml, write_json
from securitynet.results.root import FolderRoot
from securitynet.studies.definition.file import parse_study
from securitynet.studies.definition.file_digests import FileDigests
from securitynet.studies.definition.targets import expand_targets
from securitynet.studies.execution import finished_marker
from securitynet.studies.execution import status as study_status
from securitynet.studies.execution.status import Status

STUDY = """
name = "x"
[data]
dataset = "digits"
[[models]]
reference = "arch:simple-cnn"
[[attacks]]
name = "correctness"
"""
FINISHED = Status(name="x", state="finished", total=3, ok=2, failed=1, finished_now=3, failures=[("a", "b")])


@pytest.fixture
def finished(tmp_path):
    write_json(tmp_path / study_status.FILE, FINISHED.to_json())
    finished_marker.write_marker(tmp_path, "digest")
    return tmp_path


def test_the_run_is_read_back(finished):
    status = finished_marker.read(finished, "digest")
    assert (status.state, status.ok, status.failed) == ("finished", 2, 1)
    assert status.finished_now == 0  # this time nothing was done
    assert status.failures == [("a", "b")]  # the exit code still says that something failed
    assert set(json.loads((finished / finished_marker.FILE).read_text())) == {"digest", "status"}


def test_it_does_not_stand_for_anything_else(finished):
    assert finished_marker.read(finished, "other digest") is None
    assert finished_marker.read(finished / "elsewhere", "digest") is None
    # A later run was stopped: its status is not what the marker stands for.
    write_json(finished / study_status.FILE, Status(name="x", state="stopped", total=3, ok=1).to_json())
    assert finished_marker.read(finished, "digest") is None


@pytest.mark.parametrize("content", ["", "[]", '{"mark": "digest", "state": "finished", "total": 3}'])
def test_markers_that_are_damaged_or_of_earlier_versions_are_ignored(finished, content):
    (finished / finished_marker.FILE).write_text(content)
    assert finished_marker.read(finished, "digest") is None


def test_the_digest_changes_with_study_results_and_options(tmp_path):
    def compute(text=STUDY, **options):
        study = parse_study(parse_toml(text))
        targets = expand_targets(study, tmp_path, FileDigests()).targets
        return finished_marker.compute_digest(study, targets, FolderRoot(tmp_path), options)

    first = compute(refresh=False)
    assert compute(refresh=False) == first
    # How it is run decides no result.
    assert compute(STUDY + "[run]\nworkers = 3\n", refresh=False) == first
    others = {compute(refresh=True), compute(STUDY.replace("correctness", "lira"), refresh=False)}
    (tmp_path / "trials" / "ab").mkdir(parents=True)
    (tmp_path / "trials" / "ab" / "abc.json").write_text("{}")
    others.add(compute(refresh=False))
    assert first not in others and len(others) == 3
