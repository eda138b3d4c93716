"""The Hub's collector against a recorded exchange, replayed by a server on this machine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.collectors.huggingface import HubError, HuggingFaceCollector

RECORDED = json.loads((Path(__file__).parent / "hub_exchange.json").read_text())


class Hub:
    """Replays one run; ``trouble`` holds answers (status, Retry-After) to give first, by cursor."""

    def __init__(self) -> None:
        self.run = "first_run"
        self.trouble: dict[str, list[tuple[int, str | None]]] = {}
        self.asked: list[str] = []
        self.slept: list[float] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                cursor = query.get("cursor", [""])[0]
                hub.asked.append(cursor)
                assert query["filter"] == ["image-classification"] and query["sort"] == ["lastModified"]
                waiting = hub.trouble.get(cursor)
                if waiting:
                    status, after = waiting.pop(0)
                    self.send_response(status)
                    if after is not None:
                        self.send_header("Retry-After", after)
                    self.end_headers()
                    return
                answer = RECORDED[hub.run][cursor]
                self.send_response(answer["status"])
                if answer["link"]:
                    self.send_header("Link", answer["link"])
                self.end_headers()
                self.wfile.write(json.dumps(answer["body"]).encode())

            def log_message(self, *args: object) -> None:
                del args

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def collect(self, catalog: Catalog, **options: Any) -> Any:
        endpoint = f"http://127.0.0.1:{self.server.server_port}"
        return catalog.collect("huggingface", endpoint=endpoint, page_size=3, sleep=self.slept.append, **options)


@pytest.fixture
def hub() -> Iterator[Hub]:
    running = Hub()
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_entries(hub: Hub, sqlite_catalog: Catalog) -> None:
    report = hub.collect(sqlite_catalog)
    assert report.entries.added == 6, "the private one is left out"
    vit = sqlite_catalog.get("hf:google/vit-base-patch16-224")
    assert (vit.dataset, vit.family, vit.license, vit.reference) == (
        "ImageNet-1k",
        "ViT",
        "apache-2.0",
        "hf:google/vit-base-patch16-224",
    )
    assert vit.revision == f"{1:040x}"
    assert sqlite_catalog.get("hf:timm/resnet50.a1_in1k").reference == "timm:resnet50.a1_in1k"
    robust = sqlite_catalog.get("hf:someone/cifar10-resnet18-adversarially-robust")
    assert (robust.purpose, robust.claimed_accuracy, robust.dataset) == ("security", 0.8712, "CIFAR-10")
    assert robust.year is None, "a security model's year is not its architecture's"
    assert sqlite_catalog.get("hf:someone/percent").claimed_accuracy == 0.934
    assert sqlite_catalog.get("hf:someone/oldest").dataset == "someone/my-own-photos"
    assert hub.slept == [0.5, 0.5], "requests are spaced"


def test_incremental(hub: Hub, sqlite_catalog: Catalog) -> None:
    hub.collect(sqlite_catalog)
    hub.run, hub.asked = "second_run", []
    report = hub.collect(sqlite_catalog)
    assert hub.asked == [""], "the first page reaches what is known"
    assert (report.entries.added, report.entries.total) == (1, 1)
    hub.asked = []
    assert hub.collect(sqlite_catalog).entries.total == 0
    assert hub.asked == [""]


def test_goes_on_after_a_failure_and_after_a_limit(hub: Hub, sqlite_catalog: Catalog) -> None:
    hub.trouble["b2"] = [(503, None)] * 5
    with pytest.raises(HubError, match="503"):
        hub.collect(sqlite_catalog)
    assert sqlite_catalog.query().count() == 3, "the first page is stored"
    assert hub.slept[1:] == [0.5, 1.0, 2.0, 4.0], "each wait is twice the one before"
    hub.asked = []
    assert hub.collect(sqlite_catalog, limit=1).entries.added == 2
    assert hub.asked == ["b2"], "it begins where it was cut off, and ends at the limit"
    hub.asked = []
    hub.collect(sqlite_catalog)
    assert hub.asked == ["c3"] and sqlite_catalog.query().count() == 6


def test_rate_limit_is_kept(hub: Hub, sqlite_catalog: Catalog) -> None:
    hub.trouble[""] = [(429, "7")]
    hub.collect(sqlite_catalog)
    assert hub.slept[0] == 7.0 and sqlite_catalog.query().count() == 6


def test_refusals_are_told(hub: Hub, sqlite_catalog: Catalog) -> None:
    hub.trouble[""] = [(401, None)]
    with pytest.raises(HubError, match="401"):
        hub.collect(sqlite_catalog)
    assert hub.asked == [""], "what is refused is not asked again"
    collector = HuggingFaceCollector("http://127.0.0.1:9", attempts=2, sleep=hub.slept.append)
    with pytest.raises(HubError, match="cannot be reached"):
        list(collector.collect())
