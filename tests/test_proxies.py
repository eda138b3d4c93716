"""Proxies and tokens in the environment that no request can use."""

from __future__ import annotations

import pytest

from securitynet.errors import ConfigurationError
from securitynet.exchange import Client, open_client
from securitynet.models.sources._download import download
from securitynet.models.targets.backends._transport import TOKEN_VARIABLE, Transport


@pytest.mark.parametrize("proxy", ["gopher://x", "::::", "socks4://x:1"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_is_none(proxy, variable, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, proxy)
    uses = (
        lambda: open_client(timeout=1),
        lambda: Client(timeout=1),
        lambda: download("http://192.0.2.1/w", tmp_path / "w", reference="here"),
    )
    for use in uses:
        with pytest.raises(ConfigurationError, match="A proxy") as error:
            use()
        assert "ALL_PROXY" in (error.value.hint or "")


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "schlüssel€", "a\x7fb"])
def test_a_token_that_no_header_may_hold(token, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(ConfigurationError, match=TOKEN_VARIABLE) as error:
        Transport("http://127.0.0.1:9/", timeout=1, retries=0, headers=None)
    assert token not in error.value.message
