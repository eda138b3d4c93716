"""Files of the cache and of a run's state in whose place a pipe lies: opening one would wait for ever."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from securitynet.assessments.comparison import read_names
from securitynet.errors import RefusedFile
from securitynet.files import read_with_digest, write_with_digest
from securitynet.reports.study import render_study_report
from securitynet.results.signing import read_private_key, read_public_key
from securitynet.studies.definition.file_digests import FileDigests
from securitynet.studies.execution import finished_marker
from securitynet.studies.execution.lock import find_holder
from securitynet.studies.execution.status import read_status
from securitynet.untrusted import read_stored
from stored_results import write_result

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")


@pytest.fixture(autouse=True)
def patience():
    def stop(number, frame):
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_payload_is_taken_for_damaged_and_written_again(tmp_path):
    os.mkfifo(tmp_path / "payload")
    assert read_with_digest(tmp_path / "payload") is None
    write_with_digest(tmp_path / "payload", b"new")
    assert read_with_digest(tmp_path / "payload") == b"new"


def test_a_stored_file_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(OSError, match="a pipe"):
        read_stored(tmp_path / "a.json")


def test_digests_are_computed_again(tmp_path):
    os.mkfifo(tmp_path / "checksums.json")
    (tmp_path / "a").write_text("a")
    digests = FileDigests(tmp_path)
    assert len(digests.compute(tmp_path / "a") or "") == 64
    digests.save()
    assert (tmp_path / "checksums.json").is_file()


@pytest.mark.parametrize("name", ["status.json", "lock", "nothing-left.json"])
def test_the_state_of_a_study_is_unknown(name, tmp_path):
    os.mkfifo(tmp_path / name)
    assert read_status(tmp_path) is None and find_holder(tmp_path) is None
    assert finished_marker.read(tmp_path, "digest") is None


@pytest.mark.parametrize("text", ["NaN", "[]", '{"failures": 1}', "9" * 5000, '"' + "x" * 100])
def test_a_status_that_is_none(text, tmp_path):
    (tmp_path / "status.json").write_text(text)
    (tmp_path / "lock").write_text(text)
    assert read_status(tmp_path) is None and find_holder(tmp_path) is None


def test_a_report_does_without_the_study_file(tmp_path):
    write_result(tmp_path, "c" * 64, np.linspace(0, 1, 400), np.ones(400, bool))
    os.mkfifo(tmp_path / "study.toml")
    assert "<html" in render_study_report(tmp_path)


def test_names_of_records_are_not_read_from_a_pipe(tmp_path, caplog):
    assert read_names(tmp_path / "exposed.csv") == {} and not caplog.text
    os.mkfifo(tmp_path / "exposed.csv")
    assert read_names(tmp_path / "exposed.csv") == {} and "a pipe" in caplog.text


@pytest.mark.parametrize("read", [read_private_key, read_public_key])
def test_keys_are_regular_files(read, tmp_path):
    pytest.importorskip("cryptography")
    os.mkfifo(tmp_path / "key.pem")
    with pytest.raises(RefusedFile, match="a pipe"):
        read(tmp_path / "key.pem")
    with pytest.raises(RefusedFile):
        read("/dev/zero")
