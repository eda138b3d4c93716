"""Inference servers for the tests of endpoints."""

import pytest

from inference_server import InferenceServer


@pytest.fixture
def plain_environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SECURITYNET_HTTP_TOKEN", raising=False)


@pytest.fixture
def server(plain_environment):
    running = InferenceServer()
    yield running
    running.close()


@pytest.fixture
def serve(plain_environment):
    running = []

    def start(**options):
        running.append(InferenceServer(**options))
        return running[-1]

    yield start
    for one in running:
        one.close()
