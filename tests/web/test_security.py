"""Who may read, and what the browser may do."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from securitynet.web.app import create_app
from securitynet.web.security import is_loopback

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def remote(filled: tuple[str, list[str]]) -> TestClient:
    return TestClient(
        create_app(filled[0], token=TOKEN, names=None), base_url="http://example.org", follow_redirects=False
    )


def test_a_strangers_name_is_refused(client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8421"):
        assert client.get("/", headers={"host": host}).status_code == 421
    for host in ("localhost:8421", "127.0.0.1", "[::1]:8421", "LOCALHOST"):
        assert client.get("/", headers={"host": host}).status_code == 200


def test_without_the_token_nothing_is_shown(remote: TestClient) -> None:
    remote.cookies.clear()
    for path in ("/", "/api/models", "/static/web.css", "/?token=wrong", "/nothing"):
        response = remote.get(path)
        assert response.status_code == 401 and "other machines" in response.text and "net1" not in response.text


def test_a_token_in_the_address_becomes_a_cookie(remote: TestClient) -> None:
    remote.cookies.clear()
    response = remote.get(f"/plot?x=year&token={TOKEN}")
    assert response.status_code == 303 and response.headers["location"] == "/plot?x=year"
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and TOKEN not in cookie
    assert remote.get("/").status_code == 200
    remote.cookies.clear()
    assert remote.get(f"/%2Fevil.example/?token={TOKEN}").headers["location"].startswith("/evil.example")


def test_a_bearer_token(remote: TestClient) -> None:
    remote.cookies.clear()
    assert remote.get("/api/models", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert remote.get("/api/models", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert remote.get("/api/models", headers={"authorization": f"Basic {TOKEN}"}).status_code == 401


def test_any_name_needs_a_token(filled: tuple[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        create_app(filled[0], names=None)


def test_every_answer_binds_the_browser(client: TestClient) -> None:
    for path in ("/", "/nothing", "/api/models", "/static/web.js", "/?year=x"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert (
            "default-src 'none'" in policy and "unsafe" not in policy and headers["x-content-type-options"] == "nosniff"
        )


def test_nothing_can_be_written(client: TestClient) -> None:
    for method in ("post", "put", "delete", "patch"):
        for path in ("/", "/api/models", "/models/net1"):
            assert getattr(client, method)(path).status_code == 405
    search = client.app.state.site.search  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=r"readonly|could not be written"):
        search.catalog.add({"name": "new"})


@pytest.mark.parametrize(("host", "local"), [
    ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
    ("192.168.1.2", False), ("example.org", False),
])  # fmt: skip
def test_what_is_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_the_command_refuses_what_cannot_be() -> None:
    from securitynet.cli.main import app

    for arguments in (
        ["--token", "short"],
        ["--studies", "/nowhere/at/all"],
        ["--host", "198.51.100.7", "--port", "1"],
    ):
        result = CliRunner().invoke(app, ["serve", *arguments])
        assert result.exit_code != 0
