from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import re
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import securitynet.datasets.download as download
from command_line import start_script
from dataset_files import idx
from securitynet.datasets import arrays, load
from securitynet.datasets.download import RemoteFile, fetch_file, fetch_unpacked, unpack_archive
from securitynet.errors import DatasetError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by name; can break off, refuse ranges, stall and fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.break_after: list[int] = []
        self.statuses: list[int] = []
        self.ranges = True
        self.encoding: str | None = None
        self.pause = 0.0

    def remote(self, name: str, content: bytes, checksum: str | None = None) -> RemoteFile:
        self.files[f"/{name}"] = content
        digest = checksum or f"md5:{hashlib.md5(content).hexdigest()}"
        return RemoteFile(f"http://127.0.0.1:{self.server_port}/{name}", name, digest)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append(wanted)
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", wanted)) and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.server.encoding:
            self.send_header("Content-Encoding", self.server.encoding)
        self.end_headers()
        if self.server.break_after:
            self.wfile.write(body[: self.server.break_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        if not self.server.pause:
            self.wfile.write(body)
            return
        for position in range(0, len(body), 10_000):
            self.wfile.write(body[position : position + 10_000])
            self.wfile.flush()
            time.sleep(self.server.pause)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_is_downloaded_once(algorithm: str, server: Server, tmp_path: Path) -> None:
    file = server.remote("data.bin", CONTENT, f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}")
    for _ in range(2):
        assert fetch_file(file, tmp_path / "new").read_bytes() == CONTENT
    assert server.requests == [""]
    assert not list(tmp_path.rglob("*.part"))


def test_broken_connections_are_resumed_where_they_stopped(server: Server, tmp_path: Path) -> None:
    file = server.remote("data.bin", CONTENT)
    server.break_after = [100_000, 50_000]
    assert fetch_file(file, tmp_path).read_bytes() == CONTENT
    assert server.requests == ["", "bytes=100000-", "bytes=150000-"]


def test_compression_that_is_the_files_own_is_kept(server: Server, tmp_path: Path) -> None:
    content = gzip.compress(CONTENT)
    server.encoding = "gzip"
    assert fetch_file(server.remote("data.gz", content), tmp_path).read_bytes() == content


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    file = server.remote("data.bin", CONTENT)
    server.break_after, server.ranges = [100_000], False
    assert fetch_file(file, tmp_path).read_bytes() == CONTENT


def test_what_an_earlier_run_left_is_used_or_replaced(server: Server, tmp_path: Path) -> None:
    file = server.remote("data.bin", CONTENT)
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert fetch_file(file, tmp_path).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"]
    for leftover in (CONTENT, b"another version", CONTENT + b"and more"):
        (tmp_path / "data.bin").unlink()
        (tmp_path / "data.bin.part").write_bytes(leftover)
        assert fetch_file(file, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    file = server.remote("data.bin", CONTENT, f"md5:{'0' * 32}")
    with pytest.raises(DatasetError, match="checksum is not the published one"):
        fetch_file(file, tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_errors_of_the_server(server: Server, tmp_path: Path) -> None:
    file = server.remote("data.bin", CONTENT)
    server.statuses = [503, 429]
    assert fetch_file(file, tmp_path / "a").read_bytes() == CONTENT
    server.statuses = [500] * 10
    with pytest.raises(DatasetError, match="returned status 500"):
        fetch_file(file, tmp_path / "b")
    assert len(server.statuses) == 10 - download.ATTEMPTS
    server.statuses = []
    server.files.clear()
    server.requests.clear()
    with pytest.raises(DatasetError, match=r"returned status 404 .*put it at .*data.bin"):
        fetch_file(file, tmp_path / "c")
    assert len(server.requests) == 1


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setitem(
        arrays.FILES,
        "cifar10",
        RemoteFile("http://127.0.0.1:9/cifar-10-binary.tar.gz", "cifar-10-binary.tar.gz", "md5:0"),
    )
    with pytest.raises(DatasetError, match=r"cannot be downloaded: .*Download it by hand and put it at"):
        load("cifar10", root=tmp_path)


CHILD = """
import sys
from pathlib import Path
from securitynet.datasets.download import RemoteFile, fetch_file
fetch_file(RemoteFile(sys.argv[1], "data.bin", sys.argv[2]), Path(sys.argv[3]))
"""


def test_killed_while_downloading(server: Server, tmp_path: Path) -> None:
    file = server.remote("data.bin", CONTENT * 10)
    server.pause = 0.02
    with start_script(CHILD, file.url, file.checksum, tmp_path) as child:
        part = tmp_path / "data.bin.part"
        while not (part.exists() and part.stat().st_size):
            assert child.is_running()
            time.sleep(0.01)
        child.kill()
    assert not (tmp_path / "data.bin").exists()
    server.pause = 0.0
    assert fetch_file(file, tmp_path).read_bytes() == CONTENT * 10
    assert server.requests[-1].startswith("bytes=")


def test_a_dataset_is_downloaded_when_it_is_loaded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    labels = np.arange(10, dtype=np.uint8)
    for part, stem in (("train", "train"), ("test", "t10k")):
        for what, array, suffix in (("images", images, "idx3"), ("labels", labels, "idx1")):
            file = server.remote(f"{stem}-{what}-{suffix}-ubyte.gz", idx(array))
            monkeypatch.setitem(arrays.FILES, f"fmnist-{part}-{what}", file)
    dataset = load("fmnist", root=tmp_path)
    assert np.array_equal(dataset.images[10:, 0].numpy(), images)
    assert len(server.requests) == 4


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    with tarfile.open(path, "w:gz") as stream:
        for info, content in members:
            info.size = len(content)
            stream.addfile(info, io.BytesIO(content))
    return path.read_bytes()


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "member", [tarfile.TarInfo("../outside"), link("inner/out", "/etc"), link("inner/up", "../../..")]
)
def test_archives_that_reach_outside_are_refused(member: tarfile.TarInfo, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    content = b"x" if member.isfile() else b""
    archive(tmp_path / "bad.tar.gz", (tarfile.TarInfo("inner/a"), b"a"), (member, content))
    with pytest.raises(DatasetError, match="unsafe to unpack"):
        unpack_archive(tmp_path / "bad.tar.gz", root, "inner")
    assert not list(root.iterdir())
    assert not (tmp_path / "outside").exists()


def test_archives_that_are_damaged_or_of_something_else(server: Server, tmp_path: Path) -> None:
    whole = archive(tmp_path / "good.tar.gz", (tarfile.TarInfo("inner/a"), os.urandom(5000)))
    for number, content in enumerate((whole[:3000], b"junk", gzip.compress(b"junk"))):
        with pytest.raises(DatasetError, match="cannot be unpacked"):
            fetch_unpacked(server.remote(f"{number}.tar.gz", content), tmp_path / str(number), "inner")
        assert not (tmp_path / str(number) / "inner").exists()
    with pytest.raises(DatasetError, match="holds no folder other"):
        fetch_unpacked(server.remote("good.tar.gz", whole), tmp_path / "x", "other")
    leftover = tmp_path / "x/.unpacking-inner-left"
    leftover.mkdir()
    assert (fetch_unpacked(server.remote("good.tar.gz", whole), tmp_path / "x", "inner") / "a").is_file()
    assert not leftover.exists()


def test_a_folder_that_cannot_be_written_to(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="SECURITYNET_DATA"):
        fetch_file(server.remote("data.bin", CONTENT), tmp_path / "file")
