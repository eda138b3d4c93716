"""Who may read the page: the host name of a request, the token, and what the browser may load.

A page on this machine's own address can still be read by a stranger's website, if that site's name is made to point
here (DNS rebinding). So the name in a request must be one of this server's.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "securitynet_token"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For reports of studies, which are one file with all in it: a sandbox of its own origin, and nothing is loaded."""


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AccessControl:
    """Checks each request before any page sees it, and adds the headers that bind the browser.

    Args:
        app: The application behind it.
        token: Token that a visitor must send; None on loopback.
        names: Host names that requests may carry; None for any, which is safe with a token only (its cookie is not
            sent to a stranger's name).
    """

    def __init__(self, app: ASGIApp, token: str | None, names: frozenset[str] | None) -> None:
        self._app = app
        self._token = token
        self._cookie = hashlib.sha256(f"securitynet:{token}".encode()).hexdigest() if token else ""
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if self._names is not None and _name(headers.get("host", "")) not in self._names:
            return PlainTextResponse(
                "This server is asked for under a name that is not its own. Open it as http://127.0.0.1 with its "
                "port.\n",
                status_code=421,
            )
        if self._token is None:
            return None
        request = Request(scope)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and _same(given, self._token):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # A path of two slashes would be another machine's address.
            path = "/" + scope["path"].lstrip("/")
            response = RedirectResponse(f"{path}?{rest}" if rest else path, status_code=303)
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="lax")
            return response
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if (kind.lower() == "bearer" and _same(bearer.strip(), self._token)) or _same(
            request.cookies.get(COOKIE, ""), self._cookie
        ):
            return None
        return PlainTextResponse(
            "This server can be reached from other machines, so it asks for the token that `securitynet serve` "
            "printed: add ?token=TOKEN to the address once, or send `Authorization: Bearer TOKEN`.\n",
            status_code=401,
            headers={"WWW-Authenticate": "Bearer"},
        )


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "same-origin"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers["X-Frame-Options"] = "DENY"
        await send(message)

    return sending


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    return (host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]).lower()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
