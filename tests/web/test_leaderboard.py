"""The leaderboard in the page and in the API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from securitynet.assessments.comparison import read_result
from securitynet.files import add_digest, write_json
from securitynet.web.app import create_app
from securitynet.web.results import Results
from stored_results import ATTACK, N, write_result

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two unsigned results, one of them with a hostile name, and a file that is none."""
    root = tmp_path_factory.mktemp("results")
    for number, auc in enumerate(((0.6, 0.55, 0.65), (0.8, 0.75, 0.85))):
        write_result(root / str(number), f"{number:064x}", np.arange(N) / N, np.ones(N, bool), auc=auc)
    document = read_result(root / "1").document
    target = document.target.model_copy(update={"reference": HOSTILE})
    write_json(root / "1" / "result.json", add_digest(document.model_copy(update={"target": target}).to_json()))
    (root / "2").mkdir()
    (root / "2" / "result.json").write_text("nothing")
    return root


@pytest.fixture(scope="module")
def ranked(filled: tuple[str, list[str]], folder: Path) -> TestClient:
    app = create_app(filled[0], results=Results(folder, {}))
    return TestClient(app, base_url="http://127.0.0.1:8421", follow_redirects=False)


def test_the_page_ranks_marks_and_counts(ranked: TestClient) -> None:
    page = ranked.get("/results")
    assert page.status_code == 200 and "unsafe" not in page.headers["content-security-policy"]
    assert HOSTILE not in page.text and "&lt;script&gt;" in page.text
    assert page.text.index("arch:a") < page.text.index("&lt;script&gt;")  # the lower AUC is better
    assert "unsigned" in page.text and "1 × not a result" in page.text
    assert "signatures are not checked" in page.text
    assert ranked.get("/results", params={"by": "target.test_accuracy"}).status_code == 200
    assert ranked.get("/results", params={"by": "no.such"}).status_code == 200  # ranked as without it


def test_the_api_says_the_same(ranked: TestClient) -> None:
    content = ranked.get("/api/results").json()
    (dataset,) = content["datasets"]
    assert [(row["rank"], row["model"], row["evidence"]) for row in dataset["rows"]] == [
        (1, "arch:a", "unsigned"),
        (2, HOSTILE, "unsigned"),
    ]
    assert dataset["by"] == f"{ATTACK}.auc" and dataset["better"] == "lower"
    assert dataset["rows"][0]["measurements"][f"{ATTACK}.auc"]["high"] == 0.65
    assert content["skipped"] == {"not a result": 1} and content["keys"] == []
    assert ranked.get("/api/results", params={"by": "x" * 501}).status_code == 422
    assert "/api/results" in ranked.get("/api/openapi.json").json()["paths"]


def test_a_server_without_results_says_how_to_give_some(client: TestClient) -> None:
    assert "--results" in client.get("/results").text
    assert client.get("/api/results").json() == {"datasets": [], "skipped": {}, "keys": []}


def test_the_command_refuses_folders_that_are_none(tmp_path: Path) -> None:
    from securitynet.cli.main import app

    for arguments in (["--results", str(tmp_path / "none")], ["--keys", str(tmp_path)],
                      ["--results", str(tmp_path), "--keys", str(tmp_path)]):  # fmt: skip
        finished = CliRunner().invoke(app, ["serve", *arguments])
        assert finished.exit_code != 0 and finished.exception is not None
        assert "hint" in vars(finished.exception)
