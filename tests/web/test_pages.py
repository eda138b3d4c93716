"""Each page, with what is meant to be on it, and with what must not break it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

import securitynet.catalog
from securitynet.analysis import tokens
from securitynet.analysis.figures import style
from securitynet.catalog.store import Measured
from securitynet.reports.build import read_css as report_css
from securitynet.results.root import open_root
from securitynet.studies.execution.lock import hold_study_lock
from securitynet.studies.execution.status import Status
from securitynet.web import plot as plot_module
from securitynet.web.app import create_app
from securitynet.web.pages import find_blind_baselines, group_by_name
from securitynet.web.state import State
from web_catalog import fill

LOCAL = "http://127.0.0.1:8421"


def test_search_shows_what_matches_with_counts(client: TestClient) -> None:
    page = client.get("/", params={"q": "net*", "dataset": ["CIFAR-10", "SVHN"], "sort": "-claimed_accuracy"}).text
    assert re.search(r'id="count"[^>]*>27<span class="faint"> of 41</span> models', page)
    assert page.index(">net39<") < page.index(">net37<") if ">net39<" in page else page.index(">net37<") > 0
    assert 'value="CIFAR-10" checked' in page and 'value="ImageNet-1k" checked' not in page
    assert "/download.csv?q=net%2A&amp;dataset=CIFAR-10&amp;dataset=SVHN&amp;sort=-claimed_accuracy" in page


def test_pages_follow_each_other(client: TestClient) -> None:
    first, second = client.get("/").text, client.get("/?page=2").text
    names = [set(re.findall(r'class="name" href="/models/(\w+)"', page)) for page in (first, second)]
    assert [len(found) for found in names] == [25, 16] and not names[0] & names[1]
    assert 'href="/?page=2" rel="next"' in first
    assert "There are 2 pages" in client.get("/?page=9000000").text


def test_a_model_page_has_all(client: TestClient, filled: tuple[str, list[str]]) -> None:
    page = client.get(f"/models/{filled[1][0]}").text
    for text in (
        "securitynet.load_target(",
        "securitynet assess catalog:",
        "stealing.accuracy",
        "0.800 to 0.950",
        "CVPR",
        "person:",
        "as the paper says",
        "Similar models",
        "accuracy.test",
        'href="https://example.org/paper"',
    ):
        assert text in page, text
    moved = client.get("/models/net0")
    assert moved.status_code == 307 and moved.headers["location"] == f"/models/{filled[1][0]}"
    assert client.get("/models/nothing-of-that-name").status_code == 404


def test_the_blind_baseline_stands_beside_each_membership_auc(tmp_path: Path) -> None:
    with securitynet.catalog.open(str(tmp_path / "c.sqlite")) as opened:
        ids = fill(opened)
        for name, value in (("loss.auc", 0.81), ("loss.blind-auc", 0.525), ("loss.tpr@fpr=0.1", 0.2)):
            opened.record(ids[0], [Measured(f"membership.{name}", value, "trial", "t1")])
        opened.record(ids[1], [Measured("membership.lira.auc", 0.7, "published", "https://example.org")])
        groups = group_by_name(opened.details(ids[0]).measured)
    assert {name: one.value for name, one in find_blind_baselines(groups).items()} == {"membership.loss.auc": 0.525}
    with TestClient(create_app(str(tmp_path / "c.sqlite")), base_url=LOCAL) as opened_client:
        first, second = (opened_client.get(f"/models/{ids[number]}").text for number in (0, 1))
        both = opened_client.get(f"/compare?id={ids[0]}&id={ids[1]}").text
    assert re.search(r"0\.810.*?without the model \(blind baseline\): \s*<span[^>]*>0\.525", first, re.DOTALL)
    assert "without the model (blind baseline): not measured" in second
    assert both.count("without the model (blind baseline)") == 2


def test_similar_models_share_family_and_dataset(client: TestClient, filled: tuple[str, list[str]]) -> None:
    found = client.get(f"/api/models/{filled[1][0]}/similar").json()
    assert found[0]["name"] == "net30" and len(found) == 6
    assert all("ResNet" in one["family"] or one["dataset"] == "CIFAR-10" for one in found)


def test_a_plot_says_how_the_fields_go_together(client: TestClient) -> None:
    address = "/plot?x=accuracy.test&y=stealing.accuracy&colour=dataset&q=net*"
    page = client.get(address).text
    assert page.count("<circle class=") == 40 + 3
    assert "r = −1.000" in page and "jackknife over 5 families" in page and "n = 40" in page
    assert "logarithmic" in client.get("/plot?x=parameters&y=year").text
    assert "1 more match and lack" in client.get("/plot?x=parameters&y=year&q=net*").text


def test_comparison(client: TestClient, filled: tuple[str, list[str]]) -> None:
    ids = filled[1]
    page = client.get("/compare", params={"id": [ids[1], ids[2], "net3"]}).text
    assert [page.count(f">net{number}<") for number in (1, 2, 3)] == [2, 2, 2]
    assert '<tr class="differs"><th scope="row">parameters' in page and '<tr><th scope="row">task<' in page
    assert "3 more were chosen" in client.get("/compare", params={"id": ids[:9]}).text
    assert client.get("/compare?id=unheard-of").status_code == 404


def test_studies_and_their_reports(client: TestClient) -> None:
    page = client.get("/studies").text
    assert "A &amp; B" in page and "no report yet" in page
    report = client.get("/studies/1/report.html")
    assert "Findings" in report.text and report.headers["content-security-policy"].startswith("sandbox")
    for path in ("/studies/2/report.html", "/studies/3/report.html", "/studies/0/report.html"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/studies/1/../secret.txt",
        "/studies/..%2Fsecret.txt/report.html",
        "/static/..%2F..%2Fapp.py",
        "/static/%2Fetc%2Fpasswd",
        "/studies/1/..%2f..%2fsecret.txt",
        "/models/..%2f..%2fetc%2fpasswd",
        "/models/%00",
        "/download.exe",
        "/download./etc/passwd",
    ],
)
def test_no_path_leads_out(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert 400 <= response.status_code < 500 and "secret" not in response.text.replace("secret.txt", "")


def test_markup_in_the_catalog_stays_text(client: TestClient, filled: tuple[str, list[str]]) -> None:
    evil = filled[1][-1]
    for path in (
        "/",
        f"/models/{evil}",
        f"/compare?id={evil}",
        "/plot?colour=family",
        "/?page=2",
        "/?q=<script>alert(1)</script>",
        "/?family=<script>alert(1)</script>",
        "/models/<script>alert(1)</script>",
        "/?<script>alert(1)</script>=1",
    ):
        page = client.get(path).text
        assert "<script>alert" not in page and "<img src=x" not in page, path
        assert 'href="javascript:' not in page
        assert re.findall(r"<script(?! src=\"/static/)", page) == []
        assert " style=" not in page and " onclick" not in page


@pytest.mark.parametrize(
    "query",
    [
        "year=x",
        "year=2016..x",
        "year=inf",
        "year.from=nan",
        "page=0",
        "page=-1",
        "page=1e9",
        "page=99999999999999999999",
        "sort=nothing",
        "sort=notes",
        "nothing=1",
        "purpose=evil",
        "q=%00",
        "year=%00",
        "q=" + "a" * 500,
        "parameters=>=",
        "year=" + "9" * 400,
        "claimed_accuracy=1,>0",
        "year.from=" + "9" * 4000,
        "id.from=1",
        "preprocessing={",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/models", "/download.csv", "/plot"])
def test_what_makes_no_sense_is_said(client: TestClient, path: str, query: str) -> None:
    response = client.get(f"{path}?{query}")
    # A plot has no order, so it may pass one over.
    assert response.status_code in ((400, 200) if query.startswith("sort") or "9" * 400 in query else (400,)), (
        response.text[-800:]
    )


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE entries; --",
        '" OR 1=1',
        "a OR b",
        "NEAR(a b)",
        "*",
        "**",
        '"',
        "col:x",
        "\u202e\ud7ff",
        "%' OR '1'='1",
        "-",
        "()",
    ],
)
def test_sql_and_search_syntax_are_words(client: TestClient, text: str) -> None:
    assert client.get("/", params={"q": text}).status_code == 200
    assert client.get("/api/models", params={"dataset": text}).status_code == 200
    assert client.get("/api/models", params={"name": text}).status_code == 200
    assert client.get("/api/models").json()["total"] == 41


def test_downloads_hold_what_matches(client: TestClient) -> None:
    query = "?q=net*&dataset=SVHN&sort=-parameters"
    rows = list(csv.DictReader(io.StringIO(client.get(f"/download.csv{query}").text)))
    listed = client.get(f"/download.json{query}").json()
    table = pyarrow.parquet.read_table(io.BytesIO(client.get(f"/download.parquet{query}").content))
    names = [row["name"] for row in rows]
    assert len(names) == 13 and names == [one["name"] for one in listed] == table.column("name").to_pylist()
    assert json.loads(rows[0]["measurements"]) == listed[0]["measurements"] and len(listed[0]["measurements"]) == 2
    sizes = [one["parameters"] for one in listed]
    assert sizes == sorted(sizes, reverse=True)
    assert client.get("/download.json?q=unheard").json() == []
    assert client.get("/download.csv?q=unheard").text.count("\n") == 1


def test_the_page_wears_the_reports_colours(client: TestClient) -> None:
    css = client.get("/static/web.css").text
    for variable in tokens.CSS.splitlines():
        assert variable in css and variable in str(report_css()), variable
    for number, ink in enumerate(style.SERIES[:5]):
        assert re.findall(rf"--c{number}: ([^;]+);", css) == [ink.light, ink.dark]
    assert set(re.findall(r"var\(--([\w-]+)\)", css)) <= set(re.findall(r"--([\w-]+): ", css))


def test_an_empty_catalog_says_how_to_fill_it(tmp_path: Path) -> None:
    client = TestClient(create_app(str(tmp_path / "empty.sqlite")), base_url="http://127.0.0.1")
    assert "securitynet catalog collect timm" in client.get("/").text
    assert "securitynet catalog import FILE" in client.get("/plot").text
    assert "securitynet serve --studies FOLDER" in client.get("/studies").text
    assert client.get("/api/models").json()["total"] == 0 and client.get("/api/facets").json() == []
    assert client.get("/download.csv").text.count("\n") == 1 and client.get("/api/plot").json() is None


def test_searches_that_find_nothing_show_no_empty_facets(client: TestClient) -> None:
    page = client.get("/?q=zzzz").text
    assert "Nothing matches" in page and 'class="facet"' not in page


def test_a_plot_of_many_draws_a_sample_before_the_density_of_all(
    filled: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot_module, "MOST_POINTS", 20)
    monkeypatch.setattr(plot_module, "SAMPLE", 8)
    client = TestClient(create_app(filled[0]), base_url="http://127.0.0.1")
    page = client.get("/plot?x=parameters&y=claimed_accuracy&q=net*&colour=").text
    assert page.count("<circle") == 8 and "of all 40 models; 8 of them" in page and "n = 40" in page
    shades = re.findall(r'<path class="d(\d)" d="([^"]+)"', page)
    assert 1 <= len(shades) <= 6 and sum(path.count("M") for _, path in shades) <= 40
    search = client.app.state.site.search  # type: ignore[attr-defined]
    made = plot_module.make_plot(search, State("net*"), "parameters", "claimed_accuracy")
    assert made is not None and made.density is not None and made.density.sum() == 40
    values = [(entry.parameters, entry.claimed_accuracy) for entry in search.make_query(State("net*"))]
    sizes, accuracies = np.array(values, dtype=float).T
    expected, _, _ = np.histogram2d(np.log10(sizes), accuracies, bins=plot_module.CELLS)
    # At the very edge of two cells the two may differ by one.
    assert np.abs(made.density - expected).sum() <= 4
    assert client.get("/api/plot?x=parameters&y=claimed_accuracy&q=net*").json()["total"] == 40


def test_leaderboards_are_shown_with_each_source_in_a_column(tmp_path: Path) -> None:
    database = str(tmp_path / "catalog.sqlite")
    names = {"accuracy.threat=Linf.reported": 0.61, "accuracy.threat=Linf.best-known": 0.52}
    with securitynet.catalog.open(database) as catalog:
        twins = [
            catalog.add({"name": "twin", "source": source, "dataset": "CIFAR-10", "key": f"{source}:twin"})
            for source in ("timm", "torchvision")
        ]
    with TestClient(create_app(database), base_url=LOCAL) as client:
        assert "No attack on a model is known yet" in client.get("/leaderboard").text
        with securitynet.catalog.open(database) as catalog:
            catalog.record(twins[0].id, [Measured(name, value, "published", "b") for name, value in names.items()])
        page = client.get("/leaderboard").text
        assert "61.0%" in page and "52.0%" in page and f'href="/models/{twins[0].id}"' in page
        assert client.get("/leaderboard", params={"dataset": "CIFAR-10", "threat": "L0"}).status_code == 400
        search = client.get("/").text
        assert ">twin (timm)<" in search and ">twin (torchvision)<" in search
        compared = client.get("/compare", params={"id": [twin.id for twin in twins]}).text
        assert ">twin (timm)<" in compared


def test_a_study_that_runs_shows_its_progress(tmp_path: Path) -> None:
    for name, state in (("busy", "running"), ("done", "finished"), ("killed", "running")):
        run = tmp_path / name / "run"
        run.mkdir(parents=True)
        (tmp_path / name / "trials").mkdir()
        total = 40 if name != "done" else 12
        status = Status(name=name, state=state, total=total, ok=9, failed=1, skipped=2, left=300.0)
        (run / "status.json").write_text(json.dumps(status.to_json()), encoding="utf-8")
    with (
        hold_study_lock(tmp_path / "busy" / "run", open_root(tmp_path / "busy"), print),
        TestClient(create_app("sqlite://", studies=(tmp_path,)), base_url=LOCAL) as client,
    ):
        page = client.get("/studies").text
    assert "12 of 40 trials · 1 failed · about 5 min left" in page and '<progress value="12" max="40"' in page
    assert page.count("<progress") == 1 and 'hx-trigger="every 5s"' in page
    assert "12 of 40 trials · 1 failed · not running" in page
    assert "12 of 12 trials · 1 failed<" in page
