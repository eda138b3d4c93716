"""Downloads of weights from servers that state a wrong size, or never end."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import itertools
import socket
import threading
import time

import pytest

from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.sources import _download
from securitynet.models.sources._download import download
from securitynet.models.sources._hub import fetch_hub_file
from securitynet.untrusted import MAX_SIZE_VARIABLE

START = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
SMALL = 1 << 20


@pytest.fixture
def serve():
    """Starts servers that send each connection the same pieces, and count the bytes: (address, sent)."""
    with contextlib.ExitStack() as opened:

        def start(*pieces, forever=b"", pause=0.0):
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            sent = [0]

            def work():
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.recv(65536)
                    for piece in itertools.chain(pieces, itertools.repeat(forever) if forever else ()):
                        connection.sendall(piece)
                        sent[0] += len(piece)
                        time.sleep(pause)

            threading.Thread(target=work, daemon=True).start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}/w.safetensors", sent

        yield start


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setenv(MAX_SIZE_VARIABLE, str(SMALL / 2**30))


def chunk(content):
    return b"%x\r\n%s\r\n" % (len(content), content)


def test_a_download_within_the_limit(serve, tmp_path):
    address, _ = serve(START + b"Content-Length: 5\r\n\r\n", b"12345")
    download(address, tmp_path / "w", reference="here")
    assert (tmp_path / "w").read_bytes() == b"12345"


def test_a_stated_size_beyond_the_limit_is_refused_before_anything_is_written(serve, tmp_path):
    address, sent = serve(START + b"Content-Length: 99999999\r\n\r\n", forever=bytes(1000), pause=0.01)
    with pytest.raises(ModelError, match=r"more than 1\.0 MiB"):
        download(address, tmp_path / "w", reference="here")
    assert sent[0] < 50_000 and not list(tmp_path.iterdir())


def test_a_stream_without_end_is_refused(serve, tmp_path):
    address, _ = serve(START + b"Transfer-Encoding: chunked\r\n\r\n", forever=chunk(bytes(60_000)))
    with pytest.raises(ModelError, match="they are not downloaded") as error:
        download(address, tmp_path / "w", reference="here")
    assert "--max-size" in (error.value.hint or "")
    assert not list(tmp_path.iterdir())  # nor a part of it


def test_what_grows_in_transfer_is_refused(serve, tmp_path):
    packed = gzip.compress(bytes(50 * SMALL))
    header = f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    address, _ = serve(START + header, packed)
    with pytest.raises(ModelError, match="they are not downloaded"):
        download(address, tmp_path / "w", reference="here")
    assert not list(tmp_path.iterdir())


def test_a_byte_now_and_then_is_too_slow(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "_PATIENCE", 0.3)
    address, _ = serve(START + b"Content-Length: 1000\r\n\r\n", forever=b"x", pause=0.02)
    with pytest.raises(ModelError, match="too slowly"):
        download(address, tmp_path / "w", reference="here")
    assert not list(tmp_path.iterdir())


def test_a_limit_that_is_none(serve, tmp_path, monkeypatch):
    monkeypatch.setenv(MAX_SIZE_VARIABLE, "much")
    with pytest.raises(ConfigurationError, match="much"):
        download("http://127.0.0.1:9/w", tmp_path / "w", reference="here")


@pytest.mark.parametrize("size", [10**12, 3])
def test_files_of_the_hub_are_measured_before_they_are_fetched(size, tmp_path, monkeypatch):
    from huggingface_hub import constants

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            for name, value in (("ETag", '"a1"'), ("X-Repo-Commit", "c" * 40), ("X-Linked-Size", str(size))):
                self.send_header(name, value)
            self.send_header("Content-Length", "3")
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(b"abc")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        try:
            fetched = fetch_hub_file("owner/name", ["model.safetensors"], revision=None, reference="hf:owner/name")
        except ModelError as error:
            assert size > 3 and "they are not downloaded" in error.message
        else:
            assert size == 3 and fetched.read_bytes() == b"abc"
        hub.shutdown()
