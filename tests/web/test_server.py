"""The page as a server of its own process: many readers, slow ones, and visitors from other addresses."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from command_line import start_script
from securitynet.web.serving import open_socket

PATHS = ("/", "/?q=net1", "/plot", "/api/models?per_page=5", "/studies", "/download.csv")

PATIENCE = 300
"""Seconds: two processes that start took more than a minute on two cores with eighteen busy programs."""

SERVE = """
import sys
from securitynet.cli.main import main
sys.stdout.reconfigure(line_buffering=True)
sys.argv[0] = "securitynet"
main()
"""


@contextlib.contextmanager
def start_server(database: str, *options: str) -> Iterator[tuple[int, int, str]]:
    """(process id, port, what it printed) of a server."""
    with start_script(SERVE, "serve", "--db", database, "--port", 0, *options) as server:
        address = server.stdout.readline()
        port = re.search(r":(\d+)/", address)
        assert port is not None, address
        yield server.pid, int(port[1]), address


@pytest.fixture(scope="module")
def server(filled: tuple[str, list[str]]) -> Iterator[tuple[int, int]]:
    with start_server(filled[0]) as (process, port, _):
        yield process, port


def read(port: int, path: str, connection: http.client.HTTPConnection | None = None) -> int:
    """The status of a response that has been read whole."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status


def read_often(port: int, count: int) -> set[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    statuses = {read(port, PATHS[number % len(PATHS)], connection) for number in range(count)}
    connection.close()
    return statuses


def read_memory(process: int) -> int:
    """Resident KB of a process."""
    status = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert status is not None
    return int(status[1])


def test_twenty_readers_at_once(server: tuple[int, int]) -> None:
    with ThreadPoolExecutor(20) as readers:
        assert set().union(*readers.map(lambda _: read_often(server[1], 6), range(20))) == {200}


def test_slow_clients_hold_up_nobody(server: tuple[int, int]) -> None:
    """Some send half a request and wait; others ask for much and never read it."""
    with contextlib.ExitStack() as stack:
        for number in range(100):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server[1])))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if number % 2:
                client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            else:
                client.sendall(b"GET /download.csv HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20)
        assert read_often(server[1], 6) == {200}
    assert read_often(server[1], 6) == {200}


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Of a socket without a stated protocol, asyncio leaves Nagle's algorithm on: each answer took 44 ms, not 4."""
    with open_socket("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are read from /proc")
def test_several_processes_serve_one_page_and_end_with_the_first(filled: tuple[str, list[str]]) -> None:
    with start_server(filled[0], "--processes", "2") as (process, port, _):
        with ThreadPoolExecutor(4) as readers:
            assert set().union(*readers.map(lambda _: read_often(port, 6), range(4))) == {200}
        children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        serving = [child for child in children if "multiprocessing.spawn" in read_command(child)]
        assert len(serving) == 2
        os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any("multiprocessing.spawn" in read_command(child) for child in serving):
            assert time.monotonic() < deadline, "orphans hold the port"
            time.sleep(0.05)


def read_command(process: int) -> str:
    """The command line of a process; empty if there is none."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.slow
def test_memory_stays_flat(server: tuple[int, int]) -> None:
    """A tenth of the requests fills caches and pools; the others add next to nothing."""
    (process, port), count = server, 50_000
    read_often(port, count // 10)
    before = read_memory(process)
    assert read_often(port, count) == {200}
    grown = read_memory(process) - before
    print(f"{count} requests: {before} KB before, {grown} KB more after")
    assert grown < 20_000


def find_other_address() -> str:
    """This machine's address on a network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine is on no network")
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine is on no network")
    return address


def test_visitors_from_a_network_need_the_token(filled: tuple[str, list[str]]) -> None:
    address = find_other_address()
    with start_server(filled[0], "--host", "0.0.0.0") as (_, port, printed):
        token = re.search(r"\?token=([\w-]{20,})", printed)
        assert token is not None

        def ask(path: str, **headers: str) -> int:
            connection = http.client.HTTPConnection(address, port, timeout=60)
            connection.request("GET", path, headers=headers)
            status = connection.getresponse().status
            connection.close()
            return status

        for path in (*PATHS, "/static/style.css", "/api/docs", "/favicon.ico", "/no-such-page"):
            assert ask(path) == 401, path
            assert ask(path, Authorization="Bearer " + "x" * 32) == 401, path
        assert ask("/?token=" + "x" * 32) == 401
        assert ask("/", Authorization=f"Bearer {token[1]}") == 200
        assert ask(f"/?token={token[1]}") == 303


@pytest.mark.slow
def test_a_server_of_this_machine_is_not_reached_from_a_network(server: tuple[int, int]) -> None:
    with pytest.raises(OSError):
        socket.create_connection((find_other_address(), server[1]), timeout=5).close()
