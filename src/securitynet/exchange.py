"""One HTTP request and its response, whose size and duration are bounded whatever the server sends."""

from __future__ import annotations

import contextlib
import socket
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from securitynet.errors import ConfigurationError

_ERROR_BYTES = 1 << 16
"""Of the body of a refusal, no more than this is read."""

_GZIP_OR_ZLIB = 47
"""The window of `zlib.decompressobj` that recognises either header."""


def open_client(**options: Any) -> httpx.Client:
    """A client of httpx, which takes proxies from the environment.

    Args:
        **options: Those of the client.

    Raises:
        ConfigurationError: If one of the proxies cannot be used.
    """
    try:
        return httpx.Client(**options)
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # an address that is none, a kind without its package
        raise ConfigurationError(
            f"A proxy that the environment names cannot be used: {error}.",
            hint="Correct or unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; a proxy is written http://HOST:PORT.",
        ) from error


class TooLarge(Exception):
    """A response exceeds its limit; the rest was not read."""


class TooSlow(Exception):
    """A response had begun and was not complete in time."""


@dataclass(frozen=True)
class Response:
    """What a server sent.

    Attributes:
        status: Status code.
        headers: Headers, by names of any case.
        content: The body, decompressed. Of a refusal, at most the first 64 KiB.
    """

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")


class Client:
    """Sends requests over connections that stay open.

    Args:
        timeout: Seconds that a whole exchange may take.
        headers: Sent with each request.
        follow_redirects: Whether redirects are followed; else they are reported. A token must not travel to another
            host.
    """

    def __init__(
        self, *, timeout: float, headers: Mapping[str, str] | None = None, follow_redirects: bool = False
    ) -> None:
        self._timeout = timeout
        # Of compressions, only one is accepted whose output can be bounded while it is decompressed.
        self._client = open_client(
            timeout=timeout, headers={**(headers or {}), "Accept-Encoding": "gzip"}, follow_redirects=follow_redirects
        )
        self._socket: Any = None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def exchange(self, method: str, url: str, body: bytes | None, limit: int) -> Response:
        """Send a request and read the response.

        Args:
            method: ``GET``, ``HEAD`` or ``POST``.
            url: The address.
            body: The body of the request.
            limit: Largest size in bytes of the body of a response with status 200, decompressed.

        Raises:
            TooLarge: If the body is larger.
            TooSlow: If the body is not complete in time.
            httpx.InvalidURL: If it is no address.
            httpx.TransportError: If there is no response in time, or the connection breaks.
        """
        begun = False
        with self._deadline() as expired:
            try:
                with self._client.stream(method, url, content=body, extensions={"trace": self._note_socket}) as stream:
                    begun = True
                    refused = stream.status_code != 200
                    content = _read(stream, _ERROR_BYTES if refused else limit, cut=refused)
                    return Response(stream.status_code, stream.headers, content)
            except UnicodeError as error:  # of the name of the host
                raise httpx.InvalidURL("its host is no name") from error
            except httpx.TransportError as error:
                if begun and (expired.is_set() or isinstance(error, httpx.TimeoutException)):
                    raise TooSlow from error
                if expired.is_set():
                    raise httpx.ReadTimeout("no response in time") from error
                raise

    def _note_socket(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[threading.Event]:
        """Break the connection when the time is over: httpx's own limits begin anew with each byte that arrives."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Of the socket below TLS: that of TLS may not be shut down by another thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

        timer = threading.Timer(self._timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            yield expired
        finally:
            timer.cancel()


def _read(stream: httpx.Response, limit: int, *, cut: bool) -> bytes:
    """The body of a response, decompressed; with ``cut``, what exceeds the limit is left out."""
    encoding = stream.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise httpx.RemoteProtocolError(f"the encoding {encoding[:40]!r} was not asked for")
    stated = stream.headers.get("Content-Length", "")
    if not cut and stated.isdecimal() and float(stated) > limit:
        raise TooLarge
    decompressor = None if encoding in ("identity", "") else zlib.decompressobj(_GZIP_OR_ZLIB)
    content = bytearray()
    for received in stream.iter_raw():
        try:
            content += decompressor.decompress(received, limit + 1 - len(content)) if decompressor else received
        except zlib.error as error:
            raise httpx.RemoteProtocolError("the compressed response is damaged") from error
        if len(content) > limit:
            if cut:
                break
            raise TooLarge
    return bytes(content[:limit])
