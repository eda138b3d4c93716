"""How long visitors of the web page wait: eight connections at once, on a catalog of a million entries.

    python benchmarks/catalog_search.py --sizes 1000000 --queries 5 --keep million.sqlite
    python benchmarks/web_load.py --db million.sqlite

Starts `securitynet serve` on the database, and asks it over eight connections, each sending its next request when it
has its answer, for searches (words, facets, ranges, orders: `catalog_search.py`'s, with as many filters and as many
different words), for models' pages, and for plots. No request is sent twice within a kind, so that none is answered
from what an earlier one left, other than the single conditions. It does so twice: after a first start on this database,
when the server has to read all of it, and after a second one, when it finds what it kept. Prints milliseconds, and the
server's processor time a request, which does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parent))
from catalog_search import queries


async def ask(host: str, port: int, paths: list[str], seconds: list[float], sizes: list[int]) -> None:
    """Take paths from the list until it is empty, over one connection that stays open."""
    reader, writer = await asyncio.open_connection(host, port)
    while paths:
        path = paths.pop()
        start = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split()[1])
        length = next(
            int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length")
        )
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - start)
        sizes.append(length)
        if status != 200:
            raise SystemExit(f"{status} for {path}")
    writer.close()


async def load(host: str, port: int, paths: list[str], connections: int) -> tuple[list[float], list[int]]:
    """Seconds and sizes of all answers."""
    seconds: list[float] = []
    sizes: list[int] = []
    await asyncio.gather(*(ask(host, port, paths, seconds, sizes) for _ in range(connections)))
    return sorted(seconds), sizes


def searches(count: int, seed: int) -> list[str]:
    """Addresses of searches."""
    found = {}
    for query in queries(4 * count, seed):
        asked = {"q": query["text"], **query["filters"], **({"sort": query["sort"]} if query["sort"] else {})}  # type: ignore[dict-item]
        found["/?" + urlencode(asked)] = None
    return list(found)[:count]


def memory(process: int) -> int | None:
    """Most memory that a process ever took and those that it started, in MB; None where the system does not say.

    What several of them map counts for each.
    """
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(line.split()[1]) // 1000 + sum(memory(int(child)) or 0 for child in children)


def processor(process: int) -> float:
    """Seconds of processor time that a process and those that it started took; 0 where the system does not say."""
    status = Path(f"/proc/{process}/stat")
    if not status.exists():
        return 0.0
    user, system = status.read_text().rpartition(")")[2].split()[11:13]
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") + sum(processor(int(child)) for child in children)


def main() -> None:
    """Serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--port", type=int, default=8499)
    parser.add_argument("--processes", type=int, default=1, help="of the server")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        for start in ("first start", "second start"):
            serve_and_ask(arguments, start, cache)
    print(platform.platform(), platform.python_version(), "load of the machine:", os.getloadavg())


def serve_and_ask(arguments: argparse.Namespace, which: str, cache: str) -> None:
    """One start of the server, and all kinds of requests."""
    program = (sys.executable, "-m", "securitynet.cli.main", "serve")
    command = [*program, "--db", arguments.db, "--port", str(arguments.port), "--processes", str(arguments.processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SECURITYNET_CACHE": cache}
    start = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        host = "127.0.0.1"
        listening = time.perf_counter() - start
        total = _get(arguments.port, "/api/models?per_page=1")["total"]
        ready = time.perf_counter() - start
        print(
            json.dumps(
                {
                    which: f"{total:,} entries",
                    "listens after s": round(listening, 1),
                    "first search after s": round(ready, 1),
                }
            ),
            flush=True,
        )
        draw = random.Random(5)
        count = arguments.requests
        fields = ("claimed_accuracy", "parameters", "year")
        plots = [
            "/plot?" + urlencode({"x": x, "y": y, "colour": c, "year": f"{year}.."})
            for x in fields for y in fields if x != y for c in ("", "dataset", "family") for year in (2012, 2014)
        ]  # fmt: skip
        kinds = {
            "search": lambda: searches(count, 11),
            "search, page 2 to 9": lambda: [f"{path}&page={draw.randint(2, 9)}" for path in searches(count, 12)],
            "model page": lambda: [f"/models/{_any_id(arguments.port, draw.randint(1, total))}" for _ in range(count)],
            "plot of all": lambda: plots,
        }
        for kind, make in kinds.items():  # searches first: nothing was asked before
            paths = make()
            before = processor(server.pid)
            seconds, sizes = asyncio.run(load(host, arguments.port, list(paths), arguments.connections))
            print(
                json.dumps(
                    {
                        "what": kind,
                        "requests": len(seconds),
                        "median ms": round(1000 * seconds[len(seconds) // 2], 1),
                        "p95 ms": round(1000 * seconds[int(0.95 * len(seconds))], 1),
                        "max ms": round(1000 * seconds[-1], 1),
                        "processor ms a request": round(1000 * (processor(server.pid) - before) / len(seconds), 1),
                        "largest answer kB": max(sizes) // 1000,
                        "server's memory so far MB": memory(server.pid),
                    }
                ),
                flush=True,
            )
    finally:
        server.terminate()
        server.wait(10)


def _any_id(port: int, page: int) -> str:
    return str(_get(port, f"/api/models?per_page=1&page={page}")["models"][0]["id"])


def _get(port: int, path: str) -> dict[str, Any]:
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return dict(json.load(answer))


if __name__ == "__main__":
    main()
