"""Signals in the middle of a study, and two assessments in one folder: the same results, and nothing left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from securitynet.files import check_digest
from securitynet.results.store import TrialStore

SLOWLY = """
[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
[attacks.settings]
seconds = 0.7
[attacks.grid]
number = [1, 2, 3, 4, 5, 6]
"""
ONE = '[[models]]\nreference = "python:a.py:make"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGTERM,), 143), ((signal.SIGINT, signal.SIGINT), 130)],
    ids=["SIGTERM", "SIGINT twice"],
)
def test_a_signal_stops_at_once_and_the_next_run_goes_on(box, signals, code):
    box.write(SLOWLY, models=ONE)
    arguments = ("run", box.folder / "study.toml", "--out", box.out, "--threads", 1, "--workers", 1)
    process = box.start(*arguments)
    try:
        until = time.monotonic() + 150
        while not (box.out.exists() and any((box.out / "trials").rglob("*.json"))):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.3)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code and "Traceback" not in errors
    before = {path: path.read_bytes() for path in (box.out / "trials").rglob("*.json")}
    assert 0 < len(before) < 6
    assert box.run().ok == 6
    assert all(path.read_bytes() == content for path, content in before.items())  # none of them ran again
    assert len(list(TrialStore(box.out))) == 6 and not list(box.out.rglob(".*.tmp"))


@pytest.mark.slow
def test_two_assessments_in_one_folder(tmp_path):
    """Both end well; the files are whole, and the numbers those of one."""
    program = [sys.executable, "-m", "securitynet.cli.main"]
    model = ["arch:simple-cnn", "--dataset", "digits"]
    weights = str(tmp_path / "m.safetensors")
    options = ["--attacks", "loss,modified-entropy", "--detectors", "none", "--limit", "200", "--weights", weights]
    command = [*program, "assess", *model, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    train = [*program, "train", *model, "--limit", "200", "--epochs", "1", "--out", weights]
    subprocess.run(train, env=environment, check=True, capture_output=True)
    started = [
        subprocess.Popen([*command, "--out", str(tmp_path / out)], env=environment) for out in ("both", "both", "alone")
    ]
    assert [process.wait(timeout=200) for process in started] == [0, 0, 0]
    both, alone = (json.loads((tmp_path / out / "result.json").read_text()) for out in ("both", "alone"))
    for document in (both, alone):
        check_digest(document, required=True)
    assert both["measurements"] == alone["measurements"] and not list(tmp_path.rglob(".*.tmp"))
