"""The page as another machine of a network sees it: two network namespaces, joined by a pair of virtual interfaces."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

INSIDE = "192.0.2.2"
PATHS = ("/", "/?q=net1", "/plot", "/api/models?per_page=5", "/studies", "/download.csv", "/static/web.css")

VISITOR = """
import http.client, json, os, re, socket, subprocess, sys, time

database, address, *paths = sys.argv[1:]

def run(*command):
    subprocess.run(command, check=True)

machine = subprocess.Popen(["unshare", "-n", "sleep", "600"])
inside = ("nsenter", "-t", str(machine.pid), "-n")
while os.readlink(f"/proc/{machine.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
    time.sleep(0.01)
run("ip", "link", "add", "outside", "type", "veth", "peer", "name", "inside", "netns", str(machine.pid))
run("ip", "address", "add", "192.0.2.1/24", "dev", "outside")
run("ip", "link", "set", "outside", "up")
run(*inside, "ip", "address", "add", f"{address}/24", "dev", "inside")
for device in ("lo", "inside"):
    run(*inside, "ip", "link", "set", device, "up")

def serve(*options):
    program = (sys.executable, "-u", "-m", "securitynet.cli.main", "serve", "--db", database, "--port", "0")
    server = subprocess.Popen([*inside, *program, *options], stdout=subprocess.PIPE, text=True)
    printed = server.stdout.readline()
    return server, printed, int(re.search(r":(\\d+)/", printed)[1])

def ask(port, path, **headers):
    connection = http.client.HTTPConnection(address, port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return response.status

servers = []
try:
    servers.append(serve("--host", "0.0.0.0"))
    _, printed, port = servers[-1]
    token = re.search(r"[?]token=([\\w-]{20,})", printed)[1]
    wrong = "x" * len(token)
    answers = {
        "without": sorted({ask(port, path) for path in paths}),
        "wrong": sorted({ask(port, path, Authorization=f"Bearer {wrong}") for path in paths}),
        "foreign name": ask(port, "/", Host="example.org"),
        "bearer": sorted({ask(port, path, Authorization=f"Bearer {token}") for path in paths}),
        "address": ask(port, f"/?token={token}"),
        "cookie": ask(port, "/", Cookie="other=1"),
    }
    servers.append(serve())
    try:
        socket.create_connection((address, servers[-1][2]), timeout=10).close()
        answers["of its own machine only"] = "reached"
    except ConnectionRefusedError:
        answers["of its own machine only"] = "refused"
    print(json.dumps(answers))
finally:
    for process in (*(server for server, _, _ in servers), machine):
        process.kill()
        process.wait()
"""


def visit(*arguments: str) -> dict[str, Any]:
    """What a visitor from another namespace gets."""
    namespace = ["unshare", "-rn"]
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("unshare, nsenter or ip is missing")
    if subprocess.run([*namespace, "unshare", "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces are forbidden here")
    done = subprocess.run([*namespace, sys.executable, "-c", VISITOR, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_a_visitor_from_another_machine_needs_the_token(filled: tuple[str, list[str]]) -> None:
    assert visit(filled[0], INSIDE, *PATHS) == {
        "without": [401],
        "wrong": [401],
        "foreign name": 401,
        "bearer": [200],
        "address": 303,
        "cookie": 401,
        "of its own machine only": "refused",
    }
