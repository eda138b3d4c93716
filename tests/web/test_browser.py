"""The page in headless Chromium: what a visitor does, by mouse, by keyboard and on a phone.

Needs Debian's `chromium` (or what ``SECURITYNET_CHROMIUM`` names); `.ci/browser` installs it, and axe-core, and CI sets
``SECURITYNET_REQUIRE_BROWSER=1``: then what is missing is a failure and no reason to skip.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from securitynet.web.app import create_app

AXE = Path(
    os.environ.get("SECURITYNET_AXE") or Path(__file__).parents[2] / ".ci/tools/node_modules/axe-core/axe.min.js"
)


def _missing(reason: str) -> None:
    if os.environ.get("SECURITYNET_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def address(filled: tuple[str, list[str]], study_folder: Path) -> Iterator[str]:
    """A real server on a free port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(create_app(filled[0], studies=(study_folder,)), log_level="warning", access_log=False)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = os.environ.get("SECURITYNET_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        _missing("chromium is not installed: .ci/browser installs it")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page that fails the test if anything is asked of another machine, or if the console complains."""
    context = browser.new_context(base_url=address, viewport={"width": 1300, "height": 900})
    opened = context.new_page()
    foreign, complaints = [], []
    opened.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((address, "data:")) else None)
    opened.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert foreign == [] and complaints == []


def test_what_a_visitor_does(page: Any, address: str) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    page.goto("/")
    page.get_by_label("Words").fill("net*")
    expect(page.locator("#count")).to_contain_text("40 of")
    assert page.url.endswith("?q=net*") or "q=net%2A" in page.url
    page.get_by_label("CIFAR-10").check()
    expect(page.locator("#count")).to_contain_text("14 of")
    assert "dataset=CIFAR-10" in page.url
    page.go_back()
    expect(page.locator("#count")).to_contain_text("40 of")
    page.get_by_label("Compare net1", exact=True).check()
    page.get_by_role("link", name="Next").click()
    page.get_by_label("Compare net30", exact=True).check()
    page.get_by_role("button", name="Compare 2 ticked").click()
    page.wait_for_url("**/compare?*")
    assert sorted(page.locator(".comparison thead th a:first-child").all_inner_texts()) == ["net1", "net30"]
    page.get_by_role("link", name="net30", exact=True).click()
    page.wait_for_url("**/models/*")
    assert "securitynet.load_target(" in page.content() and page.get_by_role("heading", level=1).inner_text() == "net30"


def test_a_plot_is_made_read_and_shared(page: Any, browser: Any, address: str) -> None:
    page.goto("/plot?q=net*")
    page.get_by_label("across").select_option("parameters")
    page.wait_for_url("**x=parameters*")
    page.get_by_label("coloured by").select_option("dataset")
    page.wait_for_url("**colour=dataset*")
    page.wait_for_selector("#drawn .legend")
    dot = page.locator(".dots a").nth(3)
    dot.locator("circle").hover()
    assert page.locator(".tip").is_visible() and "net" in page.locator(".tip").inner_text()
    page.locator(".dots a[tabindex='0']").focus()
    first = page.locator(".tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text() != first
    other = browser.new_context().new_page()
    other.goto(page.url)
    assert other.locator("#drawn svg").first.inner_html().count("<circle") == 40
    assert other.locator("figcaption").inner_text() == page.locator("figcaption").inner_text()
    assert other.locator("#x").input_value() == "parameters"
    other.context.close()
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/*")


def test_a_download(page: Any) -> None:
    page.goto("/?q=net*")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="CSV").click()
    text = Path(waiting.value.path()).read_text()
    assert waiting.value.suggested_filename == "securitynet-catalog.csv" and text.count("\n") == 41


def test_without_a_script_all_is_there(browser: Any, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Words").fill("net*")
    page.get_by_role("checkbox", name="SVHN").check()
    page.get_by_role("button", name="Search").click()
    assert page.locator("#count").inner_text().startswith("13")
    page.get_by_label("Compare net1", exact=True).check()
    page.get_by_label("Compare net4", exact=True).check()
    page.get_by_role("button", name="Compare").click()
    assert page.locator(".comparison thead th").count() == 2
    page.goto("/plot")
    assert page.locator(".dots circle title").count() == 40
    context.close()


def test_a_report_is_shown_in_its_sandbox(page: Any) -> None:
    page.goto("/studies")
    page.get_by_role("link", name="A & B").click()
    assert "Findings" in page.content()
    assert page.evaluate("window.origin") == "null"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 390)])
def test_axe_finds_nothing_serious_and_nothing_overflows(
    browser: Any, address: str, filled: tuple[str, list[str]], scheme: str, width: int
) -> None:
    if not AXE.exists():
        _missing("axe-core is not installed: .ci/browser fetches it, or set SECURITYNET_AXE to its axe.min.js")
    ids = filled[1]
    context = browser.new_context(base_url=address, color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()
    for path in (
        "/?q=net*&dataset=SVHN&year=2012..",
        f"/models/{ids[0]}",
        f"/models/{ids[-1]}",
        "/plot?colour=dataset",
        f"/compare?id={ids[0]}&id={ids[1]}",
        "/studies",
        "/api/docs",
        "/models/none-such",
    ):
        page.goto(path)
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        serious = [
            (v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()
