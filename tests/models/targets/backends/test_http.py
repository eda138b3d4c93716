"""The HTTP backend against a real server that misbehaves."""

import email.utils
import logging
import time

import numpy as np
import pytest
import torch

from inference_server import CLASSES, SHAPE, backend_of, check
from securitynet.errors import ConfigurationError, ModelError, TargetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets.backends.http import HttpBackend
from securitynet.models.targets.target import Target


@pytest.fixture
def images():
    return torch.rand((20, *SHAPE), generator=torch.Generator().manual_seed(0))


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
        HttpBackend(url, reference="x", store_path=None, cap=None)


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
    for seconds, words in ((7200, "120 minutes"), (540, "9 minutes")):
        server.misbehave((429, b"", [("Retry-After", str(seconds))]))
        with pytest.raises(TargetError, match=words):
            backend.outputs(images + 1)
    assert len(waits) == 3
    server.misbehave((503, b"", [("Retry-After", "\u00b2\u00b3")]))  # digits that are no number
    check(backend.outputs(images + 1), images + 1)


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
        (422, "stored"),
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
        ((200, b'{"outputs": [', ()), "did not return JSON"),
        ((200, b"<html>hello</html>", ()), "did not return JSON.*html"),
        ((200, b"[]", ()), "returned no 'outputs'"),
        (
            (200, b'{"predictions": [[0.1, 0.9]]}', ()),
            r"It returned '\{\"predictions\": .*from Python: .*ask\(images\)",
        ),
        ((200, {"outputs": []}, ()), "no float output"),
        (change(shape=[19, CLASSES]), r"returned an output of shape \[19, 4\] for 20 images"),
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


def test_a_model_that_is_replaced_behind_its_address_is_another_target(server, tmp_path):
    # Otherwise signals cached under the old model would be reported for the new one without a question being sent.
    before = backend_of(server, tmp_path / "a.db").checksum
    assert backend_of(server, tmp_path / "b.db").checksum == before
    server.version = "2"
    assert backend_of(server, tmp_path / "c.db").checksum != before
