"""The HTTP backend against a real server that misbehaves, and its ledger across processes and kills."""

import email.utils
import logging
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from _inference_server import CLASSES, SHAPE, InferenceServer, model

from securitynet.errors import ConfigurationError, ModelError, QueryBudgetExceeded, TargetError
from securitynet.models.backends.http import HttpBackend, input_keys
from securitynet.models.preprocessing import Preprocessing
from securitynet.models.target import Target


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SECURITYNET_HTTP_TOKEN", raising=False)


@pytest.fixture
def server():
    running = InferenceServer()
    yield running
    running.close()


@pytest.fixture
def serve():
    running = []

    def start(**options):
        running.append(InferenceServer(**options))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def images():
    return torch.rand((20, *SHAPE), generator=torch.Generator().manual_seed(0))


def backend_of(server, path=None, *, url=None, waits=None, **options):
    options.setdefault("timeout", 5.0)
    sleep = (lambda seconds: None) if waits is None else waits.append
    return HttpBackend(
        url or server.url,
        reference="http://toy",
        ledger_path=path,
        cap=options.pop("cap", None),
        sleep=sleep,
        **options,
    )


def check(outputs, images):
    np.testing.assert_allclose(outputs.numpy(), model(images.numpy()), rtol=1e-4, atol=1e-4)
    assert outputs.dtype == torch.float32


# The protocol


def test_answers_and_what_the_server_says(server, images):
    backend = backend_of(server, batch_size=8)
    assert (backend.channels, backend.input_size, backend.num_classes) == (3, (4, 4), CLASSES)
    check(backend.outputs(images), images)
    assert server.batches == [8, 8, 4]
    assert server.paths == ["/v2/models/toy", *["/v2/models/toy/infer"] * 3]
    assert backend.outputs(images[:0]).shape == (0, CLASSES)


@pytest.mark.parametrize("form", ["/v2/models/toy", "/v2/models/toy/", "/v2/models/toy/infer"])
def test_forms_of_one_address_share_a_ledger(server, images, tmp_path, form):
    backend_of(server, tmp_path / "l.db").outputs(images)
    other = backend_of(server, tmp_path / "l.db", url=server.root + form)
    check(other.outputs(images), images)
    assert len(server.asked) == 20


def test_versions_are_different_models(server, images, tmp_path):
    one, two = (backend_of(server, tmp_path / "l.db", url=f"{server.url}/versions/{v}") for v in (1, 2))
    one.outputs(images)
    two.outputs(images)
    assert len(server.asked) == 40
    assert one.checksum != two.checksum
    assert "/v2/models/toy/versions/2/infer" in server.paths


def test_any_other_address_gets_the_same_body(server, images):
    backend = backend_of(server, url=f"{server.root}/predict")
    assert backend.channels is None
    check(backend.outputs(images), images)
    assert server.paths == ["/predict"]


def test_target_over_http_normalises_before_sending(server, images):
    target = Target(backend_of(server), preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)))
    check(target.logits(images), images * 2 - 1)
    with pytest.raises(TargetError, match="takes colour"):
        target.logits(images[:, :1])
    with pytest.raises(TargetError, match="4×4 pixels, not 5×5"):
        target.logits(torch.zeros(1, 3, 5, 5))
    assert len(server.asked) == 20


@pytest.mark.parametrize("fixed", [1, 6])
def test_fixed_batches_are_padded(serve, images, fixed):
    server = serve(declared=(fixed, *SHAPE))
    check(backend_of(server).outputs(images), images)
    assert set(server.batches) == {fixed}


def test_channels_last_endpoints(serve, images):
    server = serve(declared=(-1, 4, 4, 3))
    backend = backend_of(server)
    assert (backend.channels, backend.input_size) == (3, (4, 4))
    check(backend.outputs(images), images)


def test_descriptions_that_leave_things_out(server, images):
    server.metadata_body = {"name": "toy", "platform": "test", "inputs": [], "outputs": []}
    backend = backend_of(server)
    assert backend.num_classes is None
    check(backend.outputs(images), images)
    assert backend.num_classes == CLASSES


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": [{"name": "a", "datatype": "UINT8", "shape": [-1, 3, 4, 4]}]}, "takes UINT8"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 48]}]}, "four dimensions"),
        ({"inputs": [{"name": n, "datatype": "FP32", "shape": [-1, 3, 4, 4]} for n in "ab"]}, "takes 2 inputs"),
    ],
)
def test_descriptions_of_other_models(server, body, words):
    server.metadata_body = body
    with pytest.raises(ModelError, match=words):
        backend_of(server)


def test_names_are_checked_against_the_description(server):
    with pytest.raises(ModelError, match=r"no output 'logits'.*scores"):
        backend_of(server, output_name="logits")
    with pytest.raises(ModelError, match=r"no input 'x'.*pixels"):
        backend_of(server, input_name="x")


@pytest.mark.parametrize("url", ["ftp://host/x", "host:80/x", "http://", "http://host:notaport/x", "predict"])
def test_addresses_that_are_none(url):
    with pytest.raises(ConfigurationError, match="address"):
        HttpBackend(url, reference="x", ledger_path=None, cap=None)


def test_the_batch_shrinks_to_what_the_server_takes(serve, images):
    server = serve(max_batch=3)
    backend = backend_of(server, batch_size=20)
    check(backend.outputs(images), images)
    assert server.batches[:3] == [20, 10, 5]
    assert max(server.batches[3:]) <= 3
    assert backend.batch_size == 2
    assert len(server.asked) == len(set(server.asked)) == 20


def test_too_large_by_status(server, images):
    server.misbehave((413, b"", ()))
    check(backend_of(server, batch_size=20).outputs(images), images)
    assert server.batches == [10, 10]
    server.misbehave((413, b"too large", ()))
    with pytest.raises(TargetError, match="status 413: too large"):
        backend_of(server).outputs(images[:1])


# Misbehaviour


@pytest.mark.parametrize(
    "action", ["drop", *((status, {"error": "x"}, ()) for status in (408, 425, 429, 500, 502, 503, 504))]
)
def test_what_passes_is_tried_again(server, images, action):
    waits = []
    backend = backend_of(server, waits=waits)
    server.misbehave(action, action)
    check(backend.outputs(images), images)
    assert len(waits) == 2
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0
    assert len(server.asked) == 20


def test_a_server_that_hangs_is_asked_again(server, images):
    backend = backend_of(server, timeout=0.3)
    server.misbehave("hang")
    check(backend.outputs(images), images)


def test_retry_after_is_obeyed(server, images):
    waits = []
    backend = backend_of(server, waits=waits)
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.misbehave(
        (429, b"", [("Retry-After", "7")]), (503, b"", [("Retry-After", soon)]), (503, b"", [("Retry-After", "x")])
    )
    check(backend.outputs(images), images)
    assert waits[0] == 7
    assert 25 < waits[1] <= 30
    assert waits[2] <= 2
    server.misbehave((429, b"", [("Retry-After", "7200")]))
    with pytest.raises(TargetError, match="120 minutes"):
        backend.outputs(images + 1)


def test_giving_up_keeps_what_was_answered(server, images, tmp_path):
    backend = backend_of(server, tmp_path / "l.db", batch_size=5, retries=2)
    server.misbehave(None, None, *[(500, {"error": "the GPU is on fire"}, ())] * 3)
    with pytest.raises(TargetError, match=r"failed 3 times.*status 500: the GPU is on fire"):
        backend.outputs(images)
    assert backend.paid == 10
    check(backend_of(server, tmp_path / "l.db").outputs(images), images)
    assert len(server.asked) == len(set(server.asked)) == 20


def test_refusals_are_not_repeated(server, images, monkeypatch, caplog):
    monkeypatch.setenv("SECURITYNET_HTTP_TOKEN", "s3cret-token")
    caplog.set_level(logging.DEBUG)
    backend = backend_of(server)
    for status, words in (
        (401, "SECURITYNET_HTTP_TOKEN"),
        (403, "rights"),
        (404, "address"),
        (422, "kept"),
        (302, "redirects"),
    ):
        server.misbehave((status, {"error": "you sent s3cret-token " + "x" * 500}, [("Location", "http://elsewhere/")]))
        with pytest.raises(TargetError, match=words) as caught:
            backend.outputs(images)
        assert len(str(caught.value)) < 450
        assert "s3cret" not in str(caught.value)
    assert server.asked == []
    assert len(server.paths) == 6, "one description and one attempt each"
    assert "s3cret" not in caplog.text


def change(**fields):
    def apply(payload):
        payload["outputs"][0].update(fields)
        return payload

    return apply


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ((200, b'{"outputs": [', ()), "not JSON"),
        ((200, b"<html>hello</html>", ()), "not JSON.*html"),
        ((200, b"[]", ()), "without 'outputs'"),
        ((200, {"outputs": []}, ()), "no float output"),
        (change(shape=[19, CLASSES]), r"answered 20 images with an output of shape \[19, 4\]"),
        (change(shape=[20, CLASSES, 2, 2]), "one row of class scores each"),
        (change(shape=[20, 5]), "80 numbers for an output of shape"),
        (change(data=["many"] * 80), "not numbers"),
        (change(datatype="INT64"), "labels alone are not enough"),
        (change(shape="20x4"), "no float output"),
    ],
)
def test_answers_that_make_no_sense(server, images, tmp_path, action, words):
    backend = backend_of(server, tmp_path / "l.db")
    server.misbehave(action)
    with pytest.raises(TargetError, match=words):
        backend.outputs(images)
    assert backend.paid == 0
    check(backend.outputs(images), images)


def test_nested_data_and_other_outputs_are_understood(server, images):
    def nested(payload):
        output = payload["outputs"][0]
        output["data"] = np.reshape(output["data"], output["shape"]).tolist()
        payload["outputs"].insert(0, {"name": "best", "datatype": "INT64", "shape": [20], "data": [0] * 20})
        return payload

    server.misbehave(nested, nested)
    check(backend_of(server).outputs(images), images)
    check(backend_of(server, output_name="scores").outputs(images), images)


def test_nan_answers_are_reported_and_not_kept(server, images, tmp_path):
    def spoil(payload):
        payload["outputs"][0]["data"][5] = float("nan")
        return payload

    backend = backend_of(server, tmp_path / "l.db")
    server.misbehave(spoil)
    with pytest.raises(TargetError, match="NaN or infinity for 1 of 20"):
        backend.outputs(images)
    assert backend.paid == 19
    check(backend.outputs(images), images)
    assert len(server.asked) == 21


# The ledger


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
    assert len(set(input_keys(inputs))) == 5
    assert input_keys(np.zeros((1, 1, 2, 3), np.float32)) != input_keys(np.zeros((1, 1, 3, 2), np.float32))


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
    with pytest.raises(TargetError, match=r"serves version 2; the answers so far are of version 1.*versions/2"):
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
    backend = HttpBackend(url, reference=url, ledger_path=tmp_path / "l.db", cap=None, headers={"X-Team": "red"})
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
    import sys, torch
    from pathlib import Path
    from securitynet.models.backends.http import HttpBackend
    images = torch.rand((20, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    backend = HttpBackend({url!r}, reference="x", ledger_path=Path({path!r}), cap={cap}, batch_size=2)
    print("ready", flush=True)
    sys.stdin.readline()
    backend.outputs(images)
"""


def start_client(server, path, cap=None):
    script = textwrap.dedent(CLIENT).format(url=server.url, path=str(path), cap=cap)
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_only_the_rest_is_asked(server, images, tmp_path, signal_number):
    server.delay = 0.05
    process = start_client(server, tmp_path / "l.db")
    assert process.stdout.readline() == "ready\n"
    go(process)
    deadline = time.monotonic() + 60
    while len(server.asked) < 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal_number)
    process.wait()
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
    for process in processes:
        go(process)
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert len(server.asked) == len(set(server.asked)) == 20
