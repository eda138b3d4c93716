"""The ledger of paid answers: across runs, processes, kills and damage; and where secrets may not be found."""

import logging
import signal
import sqlite3
import textwrap
import time

import numpy as np
import pytest
import torch

from command_line import Script
from inference_server import SHAPE, backend_of, check
from securitynet.errors import ConfigurationError, QueryBudgetExceeded, TargetError
from securitynet.models.targets.backends.http import HttpBackend, hash_inputs


@pytest.fixture
def images():
    return torch.rand((20, *SHAPE), generator=torch.Generator().manual_seed(0))


def test_nothing_is_asked_twice(server, images, tmp_path):
    path = tmp_path / "paid" / "l.db"
    first = backend_of(server, path)
    doubled = torch.cat([images, images.flip(0), images[:3]])
    check(first.outputs(doubled), doubled)
    assert server.batches == [20], "equal images in one batch are asked once"
    first.close()
    check(backend_of(server, path).outputs(doubled), doubled)
    assert len(server.asked) == 20


def test_without_a_file_answers_are_remembered_by_the_backend(server, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = backend_of(server)
    backend.outputs(images)
    check(backend.outputs(images), images)
    assert len(server.asked) == 20
    assert list(tmp_path.iterdir()) == []


def test_keys_tell_normalised_inputs_apart():
    inputs = np.array([1, 2, 255, -1, 1.0000001], dtype=np.float32).reshape(5, 1, 1, 1)
    assert len(set(hash_inputs(inputs))) == 5
    assert hash_inputs(np.zeros((1, 1, 2, 3), np.float32)) != hash_inputs(np.zeros((1, 1, 3, 2), np.float32))


def test_the_cap_counts_all_runs(server, images, tmp_path):
    path = tmp_path / "l.db"
    backend_of(server, path, cap=12).outputs(images[:10])
    later = backend_of(server, path, cap=12)
    with pytest.raises(QueryBudgetExceeded, match=r"cap of 12 .*10 were paid for"):
        later.outputs(images[:15])
    assert len(server.asked) == 10, "nothing of the batch was sent"
    check(later.outputs(images[:12]), images[:12])
    check(later.outputs(images[:12]), images[:12])
    assert len(server.asked) == 12
    assert later.paid == 12


def test_a_dead_server_is_no_matter_for_what_was_paid(server, images, tmp_path):
    backend_of(server, tmp_path / "l.db").outputs(images)
    server.close()
    backend = backend_of(server, tmp_path / "l.db", retries=1)
    check(backend.outputs(images), images)
    with pytest.raises(TargetError, match="failed 2 times"):
        backend.outputs(images + 1)
    with pytest.raises(TargetError, match="failed 2 times"):
        backend_of(server, tmp_path / "other.db", retries=1)


def test_a_model_that_changes_under_its_name_is_noticed(server, images, tmp_path):
    backend = backend_of(server, tmp_path / "l.db")
    backend.outputs(images[:5])
    server.version = "2"
    with pytest.raises(TargetError, match=r"serves version 2; the outputs so far are of version 1.*versions/2"):
        backend.outputs(images)
    server.version, server.classes = "1", 3
    with pytest.raises(TargetError, match="3 class scores; it used to be 4"):
        backend_of(server, tmp_path / "l.db").outputs(images)


def test_a_damaged_answer_is_asked_again(server, images, tmp_path):
    path = tmp_path / "l.db"
    backend = backend_of(server, path)
    backend.outputs(images)
    backend.close()
    with sqlite3.connect(path) as db:
        key, content = db.execute("SELECT key, outputs FROM answers").fetchone()
        db.execute("UPDATE answers SET outputs = ? WHERE key = ?", (content[:-1] + bytes([content[-1] ^ 1]), key))
    check(backend_of(server, path).outputs(images), images)
    assert len(server.asked) == 21


def test_a_file_that_is_no_ledger(server, tmp_path):
    path = tmp_path / "l.db"
    path.write_bytes(b"something else " * 100)
    with pytest.raises(TargetError, match=r"cannot be used.*move it away"):
        backend_of(server, path)
    assert path.read_bytes().startswith(b"something else"), "it is left as it was"
    with pytest.raises(TargetError, match="cannot be used"):
        backend_of(server, tmp_path)


def test_secrets_reach_the_server_and_nothing_else(server, images, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SECURITYNET_HTTP_TOKEN", "s3cret-token")
    url = f"{server.url}?key=s3cret-key"
    backend = HttpBackend(url, reference=url, store_path=tmp_path / "l.db", cap=None, headers={"X-Team": "red"})
    check(backend.outputs(images), images)
    assert server.headers[-1]["X-Team"] == "red"
    assert server.headers[-1]["Authorization"] == "Bearer s3cret-token"
    assert server.paths[-1] == "/v2/models/toy/infer?key=s3cret-key"
    assert backend.reference == server.url
    backend.close()
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert "s3cret" not in backend.reference + backend.checksum + caplog.text
    assert b"s3cret" not in written
    monkeypatch.setenv("SECURITYNET_HTTP_TOKEN", "Basic abc")
    backend_of(server)
    assert server.headers[-1]["Authorization"] == "Basic abc"


def test_credentials_in_the_address_are_refused_and_not_repeated(server):
    with pytest.raises(ConfigurationError, match="SECURITYNET_HTTP_TOKEN") as caught:
        backend_of(server, url=server.url.replace("//", "//user:passw0rd@"))
    assert "passw0rd" not in str(caught.value)


CLIENT = """
    import time, torch
    from pathlib import Path
    from securitynet.models.targets.backends.http import HttpBackend
    images = torch.rand((20, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    backend = HttpBackend({url!r}, reference="x", store_path=Path({path!r}), cap={cap}, batch_size=2)
    print("ready", flush=True)
    while not Path({path!r}).with_suffix(".go").exists():
        time.sleep(0.005)
    backend.outputs(images)
"""


def start_client(server, path, cap=None):
    return Script(textwrap.dedent(CLIENT).format(url=server.url, path=str(path), cap=cap))


def go(path):
    path.with_suffix(".go").touch()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_only_the_rest_is_asked(server, images, tmp_path, signal_number):
    server.delay = 0.3  # long enough for a busy machine to deliver the signal before all is asked
    process = start_client(server, tmp_path / "l.db")
    assert process.stdout.readline() == "ready\n"
    go(tmp_path / "l.db")
    deadline = time.monotonic() + 60
    while len(server.asked) < 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill(signal_number)
    time.sleep(2 * server.delay)  # the request in flight is still answered, to nobody
    asked = len(server.asked)
    assert 8 <= asked < 20
    server.delay = 0.0
    backend = backend_of(server, tmp_path / "l.db", batch_size=2)
    assert asked - 2 <= backend.paid <= asked, "at most the answer in flight is lost"
    check(backend.outputs(images), images)
    assert len(server.asked) <= 22
    assert len(set(server.asked)) == 20


def test_two_processes_never_pay_twice_nor_overrun_the_cap_together(server, images, tmp_path):
    server.delay = 0.02
    processes = [start_client(server, tmp_path / "l.db", cap=20) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    go(tmp_path / "l.db")
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert len(server.asked) == len(set(server.asked)) == 20
