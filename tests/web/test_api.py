"""The JSON API, and whatever Schemathesis makes of its description."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

NAMED = {
    "/api/models/{identifier}",
    "/api/models/{identifier}/history",
    "/api/models/{identifier}/similar",
    "/api/plot",
}


@pytest.mark.slow
def test_no_request_breaks_the_server(client: TestClient) -> None:
    import schemathesis  # here, as every process that collects the tests would import it
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_asgi("/api/openapi.json", client.app, headers={"host": "127.0.0.1"})
    tried: list[str] = []
    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with contextlib.suppress(Unsatisfiable):  # what has no parameters has no wrong ones
                try_operation(operation, mode, tried)
    assert set(tried) == set(client.get("/api/openapi.json").json()["paths"]) and len(tried) > 60


def try_operation(operation: Any, mode: Any, tried: list[str]) -> None:
    """Send requests that fit the description, or that do not; what fits is answered."""
    from hypothesis import HealthCheck, given, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def check(case: Any) -> None:
        tried.append(case.operation.path)
        response = case.call_and_validate(
            headers={"host": "127.0.0.1"},
            timeout=60,
            checks=[not_a_server_error, content_type_conformance, response_schema_conformance],
        )
        # Fields of a plot and ids depend on what there is.
        assert mode is GenerationMode.NEGATIVE or response.status_code == 200 or case.operation.path in NAMED

    check()


def test_undeclared_methods_are_named(client: TestClient) -> None:
    for path in ("/", "/api/models", "/api/codes"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"):
            response = client.request(method, path)
            assert response.status_code == 405 and "GET" in response.headers["allow"]


def test_a_filter_that_is_nested_too_deeply(client: TestClient) -> None:
    assert client.get("/api/models", params={"preprocessing": "[" * 1900}).status_code == 400


def test_pages_of_the_api_join_to_all(client: TestClient) -> None:
    names: list[str] = []
    address: str | None = "/api/models?per_page=7&sort=-year&q=net*"
    while address:
        page = client.get(address).json()
        names += [one["name"] for one in page["models"]]
        address = page["next"]
    assert page["total"] == 40 and len(names) == len(set(names)) == 40 and names[-1] == "net7"
    assert client.get("/api/models?per_page=100000").status_code == 400
    assert client.get("/api/models?per_page=0").status_code == 400


def test_one_model(client: TestClient, filled: tuple[str, list[str]]) -> None:
    found = client.get(f"/api/models/{filled[1][0]}").json()
    assert found["codes"]["name"] == "net0" and found["sources"]["venue"].startswith("person:")
    trial = next(one for one in found["measurements"] if one["measured_by"] == "trial")
    assert (trial["value"], trial["low"], trial["high"]) == (0.9, 0.8, 0.95)
    changes = client.get(f"/api/models/{filled[1][0]}/history").json()
    assert changes[-1]["differences"]["venue"] == [None, "CVPR"] and changes[-1]["note"] == "as the paper says"
    missing = client.get("/api/models/nothing-like-it")
    assert missing.status_code == 404 and missing.json()["error"]


def test_a_plots_data(client: TestClient) -> None:
    found = client.get("/api/plot?x=claimed_accuracy&y=stealing.accuracy&q=net*").json()
    assert found["total"] == len(found["points"]) == 40 and found["correlation"]["value"] < -0.999
    assert client.get("/api/plot?x=nothing").status_code == 400


def test_every_operation_is_on_the_page(client: TestClient) -> None:
    page = client.get("/api/docs").text
    for path in client.get("/api/openapi.json").json()["paths"]:
        assert f"GET {path}<" in page
    assert "cdn" not in page and "claimed_accuracy" in page
    facets = client.get("/api/facets").json()
    assert next(f for f in facets if f["code"] == "dataset")["values"][0]["count"] == 14
    assert client.get("/api/codes").json()[0]["name"] == "key"
    assert [one["name"] for one in client.get("/api/studies").json()] == ["A & B", "two"]
