"""Servers that send too much, too slowly or too deeply end in one error, soon and in little memory."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
import zlib

import numpy as np
import pytest
import torch

from securitynet.errors import ModelError, TargetError
from securitynet.models.targets.backends._layout import read_layout
from securitynet.models.targets.backends._protocol import limit_response, read_response
from securitynet.models.targets.backends.http import HttpBackend

IMAGES = torch.zeros((2, 1, 4, 4))
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"


@pytest.fixture
def serve():
    """Starts servers, each of which answers every request by what a function writes to the connection."""
    listeners = []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection):
            with connection:
                try:
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(1 << 16)
                    answer(connection)
                except OSError:  # the client has had enough
                    pass

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/predict"

    yield start
    for listener in listeners:
        listener.close()


def ask(url, timeout=20.0):
    backend = HttpBackend(url, reference="http://hostile", timeout=timeout, retries=0, sleep=lambda seconds: None)
    try:
        return backend.outputs(IMAGES)
    finally:
        backend.close()


def bomb(connection):
    """A small gzip file of 4 GB of blanks."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    connection.sendall(CHUNKED + b"Content-Encoding: gzip\r\n\r\n")
    blank = b" " * (1 << 22)
    for _ in range(1000):
        piece = compressor.compress(blank)
        if piece:
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


def endless(connection):
    connection.sendall(CHUNKED + b"\r\n")
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while True:
        connection.sendall(piece)


def stated(connection):
    connection.sendall(OK + b"Content-Length: 100000000000\r\n\r\n")
    time.sleep(5)


def brotli(connection):
    connection.sendall(OK + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc")


def cut_gzip(connection):
    connection.sendall(OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")


def drip_body(connection):
    connection.sendall(CHUNKED + b"\r\n")
    while True:
        connection.sendall(b"1\r\n \r\n")
        time.sleep(0.05)


def drip_headers(connection):
    connection.sendall(OK)
    while True:
        connection.sendall(b"X")
        time.sleep(0.05)


def refuse_endlessly(connection):
    connection.sendall(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"\x1b[2J" * 0x4000 + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "timeout", "words"),
    [
        (bomb, 20, "sent more than"),
        (endless, 20, "sent more than"),
        (stated, 20, "sent more than"),
        (brotli, 20, "was not asked for"),
        (cut_gzip, 20, "damaged"),
        (drip_body, 0.5, "did not complete its response within 0.5 seconds"),
        (drip_headers, 0.5, "no response in time"),
        (refuse_endlessly, 20, "refused: status 403"),
    ],
)
def test_what_is_sent_is_bounded(serve, answer, timeout, words):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(TargetError, match=words) as caught:
        ask(serve(answer), timeout)
    assert len(str(caught.value)) < 1000
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def output(**changes):
    return {"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [0.0] * 6, **changes}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"outputs":' + b"[" * 5000 + b"]" * 5000 + b"}",
        json.dumps({"outputs": [output(data=[10**400] * 6)]}).encode(),
        json.dumps({"outputs": [output(data={"a": 1})]}).encode(),
        json.dumps({"outputs": [output(shape=[-1, 1, 100000, 100000])]}).encode(),
        json.dumps({"outputs": [output(shape=[2, 10**30])]}).encode(),
        json.dumps({"outputs": [output(shape=[2] * 100_000)]}).encode(),
        json.dumps({"outputs": [output(name="\x1b" * 10**6, datatype="INT8")] * 3}).encode(),
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2,3],"data":' + b"[" * 60 + b"1" + b"]" * 60 + b"}]}",
        b"\xff\xfe" * 1000,
        b'{"outputs":[{"shape":[2,3],"datatype":"FP32","data":[' + b"9" * 5000 + b"]}]}",
    ],
)
def test_responses_that_make_no_sense(body):
    with pytest.raises(TargetError) as caught:
        read_response(body, 2, "http://hostile", None)
    assert len(str(caught.value)) < 2000


def test_versions_that_are_none_are_left_out():
    for version in ([[1]], {"a": 2}, None):
        body = json.dumps({"model_version": version, "outputs": [output()]}).encode()
        assert read_response(body, 2, "http://hostile", None).version is None


@pytest.mark.parametrize(
    "shape", [[-1, 1, 100000, 100000], [10**9, 3, 32, 32], [-1, 10**9, 32, 32], [-1, 3, 2**70, 1], [1] * 100_000]
)
def test_inputs_too_large_for_images(shape):
    with pytest.raises(ModelError) as caught:
        read_layout(shape, "http://hostile")
    assert len(str(caught.value)) < 500


def test_the_limit_leaves_room_for_every_score():
    """The longest doubles of all classes fit, twice."""
    longest = json.dumps([float(np.nextafter(-2.2250738585072014e-308, 0))] * 1000)
    assert limit_response(32, 1000) > 2 * 32 * len(longest)
    assert limit_response(10**6, None) == 32 << 20
