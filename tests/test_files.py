"""Files are whole or absent."""

import hashlib
import signal
import subprocess
import sys
import time

import pytest

from securitynet.errors import ConfigurationError
from securitynet.files import (
    file_checksum,
    hash_stably,
    read_file_address,
    read_toml,
    read_with_digest,
    write_atomically,
    write_json,
    write_with_digest,
)


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    before = path.read_text()
    with pytest.raises(RuntimeError), write_atomically(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_sigkill_while_writing_leaves_old_or_new(tmp_path):
    path = tmp_path / "big"
    code = (
        "import sys, pathlib\nfrom securitynet.files import write_atomically\nimport itertools\n"
        "for i in itertools.count():\n"
        "    with write_atomically(pathlib.Path(sys.argv[1])) as s:\n"
        "        for _ in range(64): s.write(bytes([i % 251]) * 65536)\n"
    )
    for delay in (0.02, 0.05, 0.11):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 64 * 65536 and len(set(content)) == 1


WRITE = """
import os, pathlib, sys
from securitynet.files import write_atomically
with write_atomically(pathlib.Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    if sys.argv[2] == "die":
        os._exit(1)
    print("writing", flush=True)
    sys.stdin.readline()
"""


def test_temporary_files_of_dead_processes_go_and_those_of_others_stay(tmp_path):
    others = tmp_path / ".x.abcdefgh.tmp"  # of another program
    others.touch()
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "x"), "die"], check=False)
    (abandoned,) = set(tmp_path.iterdir()) - {others}
    command = [sys.executable, "-c", WRITE, str(tmp_path / "y"), "live"]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin and writer.stdout and writer.stdout.readline() == "writing\n"
    assert not abandoned.exists(), "the second process removed it"
    (written,) = set(tmp_path.iterdir()) - {others}
    write_json(tmp_path / "z.json", 1)
    assert written.exists(), "its process lives"
    writer.communicate("go on\n")
    assert {path.name for path in tmp_path.iterdir()} == {others.name, "y", "z.json"}
    assert (tmp_path / "y").read_bytes() == b"half"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///home/me/a%20b", "/home/me/a b"),
        ("file://localhost/home/me", "/home/me"),
        ("FILE:/home/me", "/home/me"),
        ("file:a/b", "a/b"),
        ("/home/file:x", None),
        ("file", None),
        ("file:", None),
        ("folder:a", None),
    ],
)
def test_paths_in_addresses_of_files(text, path):
    assert read_file_address(text) == path


def test_stable_hash_ignores_the_order_of_keys():
    assert hash_stably({"a": 1, "b": [0.1, None]}) == hash_stably({"b": [0.1, None], "a": 1})
    assert hash_stably({"a": 1}) != hash_stably({"a": 2})


def test_checksum_is_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_checksum(tmp_path / "f").startswith("ba7816bf8f01cfea")


def test_bad_toml_names_the_line(tmp_path):
    (tmp_path / "bad.toml").write_text("a = 1\nb = \n")
    with pytest.raises(ConfigurationError, match="line 2"):
        read_toml(tmp_path / "bad.toml")
    with pytest.raises(ConfigurationError, match="no file"):
        read_toml(tmp_path / "absent.toml")


def test_a_file_with_a_digest_is_the_digest_and_the_payload(tmp_path):
    path = tmp_path / "folder" / "x"
    write_with_digest(path, b"abc")
    assert path.read_bytes() == hashlib.sha256(b"abc").digest() + b"abc"
    assert read_with_digest(path) == b"abc"
    with pytest.raises(FileNotFoundError):
        read_with_digest(tmp_path / "absent")


def test_any_flipped_bit_and_any_cut_is_noticed(tmp_path):
    path = tmp_path / "x"
    write_with_digest(path, b"abc")
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert read_with_digest(path) is None, bit
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_with_digest(path) is None, length
