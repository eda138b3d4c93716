"""Hostile endpoints, one a row: see the fixture `run_refused` for what must hold of each."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from hostile_rows import choose_rows


def respond(body=b"", *, status="200 OK", headers=()):
    """A response as bytes."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


RESPONSES = {
    "no HTTP": b"220 smtp.example.org ESMTP\r\n",
    "nothing": b"",
    "HTML": respond(b"<html><script>alert(1)</script></html>"),
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3_000_000,
    "headers without number": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000 + b"\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    "a length of an exabyte": b"HTTP/1.1 200 OK\r\nContent-Length: 1152921504606846976\r\n\r\n{}",
    "a chunk of an exabyte": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
    "a redirection to a file": respond(status="302 Found", headers=["Location: file:///etc/passwd"]),
    "a redirection to itself": respond(status="302 Found", headers=["Location: /v2/models/toy"]),
    "a redirection to another place": respond(status="307 X", headers=["Location: http://192.0.2.1/"]),
    "a status below zero": b"HTTP/1.1 -1 X\r\n\r\n",
    "numbers without bound": respond(b'{"outputs": [{"data": [1e999], "shape": [1, 1e999], "name": "a"}]}'),
    "a number of 5,000 digits": respond(b'{"outputs": [{"data": [' + b"9" * 5000 + b"]}]}"),
    "text for numbers": respond(b'{"outputs": [{"name": "a", "shape": ["1", "4"], "data": ["x"]}]}'),
    "no object": respond(b"[[[]]]"),
    "commands for a terminal": respond(b'{"error": "\\u001b[2J\\u001b]0;x\\u0007"}', status="400 \x1b[2J"),
    "no bytes of text": respond(b"\xff\xfe\x00"),
    "gzip that is none": respond(b"not compressed", headers=["Content-Encoding: gzip"]),
    "an encoding that nobody knows": respond(b"{}", headers=["Content-Encoding: zstd, br, gzip, x"]),
}


@pytest.fixture
def serve():
    """Starts a server that sends the same bytes to whoever connects; returns its port."""
    with contextlib.ExitStack() as stack:

        def start(content):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def work():
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listening.accept()
                        with connection, contextlib.suppress(OSError):
                            connection.settimeout(2)
                            connection.recv(1 << 16)
                            connection.sendall(content)

            threading.Thread(target=work, daemon=True).start()
            return listening.getsockname()[1]

        yield start


@pytest.mark.parametrize("kind", choose_rows(RESPONSES, "a chunk of an exabyte"))
def test_responses(run_refused, serve, kind):
    url = f"http://127.0.0.1:{serve(RESPONSES[kind])}/v2/models/toy"
    run_refused("assess", url, "--dataset", "digits", "--limit", "40", "--timeout", "2", "--retries", "0")
