"""Requests to a server that may be slow, busy or broken: timeouts, retries with back-off, clear errors."""

from __future__ import annotations

import email.utils
import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httpx

from securitynet.errors import ConfigurationError, TargetError
from securitynet.exchange import Client, Response, TooLarge, TooSlow

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "SECURITYNET_HTTP_TOKEN"  # the variable's name, not a secret

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 60.0
_LONGEST_RETRY_AFTER = 60.0
"""A server that wants more could hold a run for an hour, and nobody would see why."""
_STORED = "Outputs received so far are stored."


class BatchTooLarge(Exception):
    """The server refuses a batch of this size: a signal to the caller that users never see."""


class Unreachable(TargetError):
    """The server did not respond to any attempt."""


class Transport:
    """Sends requests, and repeats those that failed for a temporary reason.

    A request is repeated after a time-out, a broken connection, and the statuses 408, 425, 429, 500, 502, 503, 504. The
    wait is 0.5 s, 1 s, 2 s, ... (60 s at most), each shortened by a random part of up to a half so that many clients do
    not return at once, and at least as long as the server's ``Retry-After`` header states. A longer pause than a minute
    ends the run.

    Args:
        shown: The address for messages, without credentials.
        timeout: Seconds in which a response must be complete.
        retries: Number of times that a request is repeated.
        headers: Sent with each request. An ``Authorization`` header is made from the environment variable
            ``SECURITYNET_HTTP_TOKEN`` if that is set: ``Bearer`` is put before it unless it names its scheme.
        sleep: Called with a number of seconds to wait.
    """

    def __init__(
        self,
        shown: str,
        *,
        timeout: float,
        retries: int,
        headers: Mapping[str, str] | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if timeout <= 0 or retries < 0:
            raise ConfigurationError("An endpoint needs a timeout above 0 seconds and 0 or more retries.")
        self._shown = shown
        self._retries = retries
        self._sleep = sleep
        self._random = random.Random()
        self._token = os.environ.get(TOKEN_VARIABLE, "").strip()
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        if self._token:
            sent["Authorization"] = self._token if " " in self._token else f"Bearer {self._token}"
            if urlsplit(shown).scheme == "http" and urlsplit(shown).hostname not in ("localhost", "127.0.0.1", "::1"):
                logger.warning("%s is sent unencrypted to %s; use https.", TOKEN_VARIABLE, shown)
        for name, value in sent.items():
            text = f"{name}{value}"
            if not (text.isascii() and text.isprintable()):
                where = f"{TOKEN_VARIABLE}, sent as {name}," if self._token and name == "Authorization" else name
                raise ConfigurationError(
                    f"The header {where} holds what no header may: line breaks, or letters that are no ASCII.",
                    hint="Copy it again.",
                )
        # httpx logs whole addresses, and with them any key that is part of one.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._timeout = timeout
        self._client = Client(timeout=timeout, headers=sent)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, url: str, *, limit: int) -> bytes:
        """Send a GET request and return the body of the response with status 200; errors are those of `post`."""
        return self._send("GET", url, None, 1, limit)

    def post(self, url: str, body: bytes, *, batch: int, limit: int) -> bytes:
        """Send a POST request and return the body of the response with status 200.

        Args:
            url: The address.
            body: The JSON body.
            batch: Number of images in it.
            limit: Largest size of the response in bytes.

        Raises:
            BatchTooLarge: If the server refuses the size and the batch can be divided.
            Unreachable: If all attempts failed.
            TargetError: If the server refuses for a permanent reason, or sends too much or too slowly.
        """
        return self._send("POST", url, body, batch, limit)

    def _send(self, method: str, url: str, body: bytes | None, batch: int, limit: int) -> bytes:
        for attempt in range(self._retries + 1):
            response: Response | None = None
            try:
                response = self._client.exchange(method, url, body, limit)
                if response.status == 200:
                    return response.content
                reason = f"status {response.status}{self._message(response)}"
                if response.status not in _RETRIED:
                    self._refuse(response, reason, batch)
            except TooLarge:
                raise TargetError(
                    f"{self._shown} sent more than {limit / 2**20:.1f} MiB: more than scores take, so it is not read.",
                    hint="Send fewer images at once (--batch-size), or choose one of several outputs (--output).",
                ) from None
            except TooSlow:
                raise TargetError(
                    f"{self._shown} did not complete its response within {self._timeout:g} seconds.",
                    hint=f"Allow more with --timeout, or send fewer images at once (--batch-size). {_STORED}",
                ) from None
            except httpx.InvalidURL as error:
                raise ConfigurationError(f"The address of the endpoint is not understood: {error}.") from error
            except httpx.TimeoutException:
                reason = "no response in time"
            except httpx.TransportError as error:
                reason = self._without_token(str(error)) or type(error).__name__
            if attempt < self._retries:
                delay = self._delay(attempt, response)
                logger.info("%s: %s; repeated in %.1f s", self._shown, reason, delay)
                self._sleep(delay)
        raise Unreachable(
            f"{self._shown} failed {self._retries + 1} times; the last time: {reason}.",
            hint=f"{_STORED[:-1]}: run again when the server works.",
        )

    def _refuse(self, response: Response, reason: str, batch: int) -> None:
        status = response.status
        if batch > 1 and (status == 413 or (status == 400 and "batch" in response.text.lower())):
            raise BatchTooLarge
        hints = {
            401: f"Put the token into the environment variable {TOKEN_VARIABLE}.",
            403: f"Check the rights of the token in the environment variable {TOKEN_VARIABLE}.",
            404: "Check the address and the model's name and version.",
        }
        if 300 <= status < 400:
            raise TargetError(
                f"{self._shown} redirects elsewhere.", hint="Give the address that it redirects to, if you trust it."
            )
        raise TargetError(f"{self._shown} refused: {reason}.", hint=hints.get(status, _STORED))

    def _delay(self, attempt: int, response: Response | None) -> float:
        backoff = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**attempt) * self._random.uniform(0.5, 1)
        requested = _retry_after(response) if response is not None else 0.0
        if requested > _LONGEST_RETRY_AFTER:
            raise Unreachable(
                f"{self._shown} requests a pause of {requested / 60:.0f} minutes.",
                hint=f"{_STORED[:-1]}: run again after that time.",
            )
        return max(backoff, requested)

    def _message(self, response: Response) -> str:
        """The server's own message, shortened, after a colon; empty if there is none."""
        text = response.text
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, dict):
            text = str(body.get("error") or body.get("detail") or body.get("message") or text)
        words = " ".join(self._without_token(text).split())
        return f": {words[:200]}" if words else ""

    def _without_token(self, text: str) -> str:
        secret = self._token.rpartition(" ")[2]
        return text.replace(secret, "***") if secret else text


def _retry_after(response: Response) -> float:
    """Seconds that the header ``Retry-After`` requests, as a number or a date; 0 without it."""
    value = str(response.headers.get("Retry-After", "")).strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, float(email.utils.parsedate_to_datetime(value).timestamp()) - time.time())
    except (ValueError, TypeError):
        return 0.0
