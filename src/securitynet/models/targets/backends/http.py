"""A served model: an endpoint that speaks the Open Inference Protocol (KServe, Triton, MLServer)."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.errors import ConfigurationError, QueryBudgetExceeded, TargetError
from securitynet.files import find_cache_folder, hash_stably
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.targets.backends._protocol import (
    InferenceResponse,
    ModelMetadata,
    build_request,
    limit_response,
    parse_endpoint,
    read_metadata,
    read_response,
)
from securitynet.models.targets.backends._stored_outputs import Row, StoredOutputs
from securitynet.models.targets.backends._transport import BatchTooLarge, Transport, Unreachable
from securitynet.models.targets.backends.base import Backend, LoadOptions, OpenedModel

SCHEME = Scheme("http", "http://host:port/predict", aliases=("https",), address=True)

_REQUEST_SIZE = 32
_DESCRIPTION_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class HttpBackend(Backend):
    """A model behind an address. Each distinct input is sent only once: its output is stored and reused.

    Args:
        url: ``http://HOST:PORT/v2/models/NAME[/versions/V][/infer]``, or any other address that accepts the same
            request body; no description is requested from such an address.
        reference: Reference as the user writes it. A query string, which may hold a key, is removed from it.
        store_path: SQLite file of received outputs, shared by all endpoints and runs; None stores in memory only.
        cap: Largest number of distinct inputs to send to this endpoint, counted over all runs; None for no limit.
        batch_size: Most images in a request; reduced if the server refuses so many.
        timeout: Seconds to wait for a response.
        retries: Number of times that a failed request is repeated; see `Transport`.
        headers: Sent with each request, besides the authorisation from ``SECURITYNET_HTTP_TOKEN``.
        input_name: Name of the input; by default the described one, or ``input``.
        output_name: Output that holds the class scores; by default the first float output with a row per image.
        sleep: Called with a number of seconds to wait between attempts.

    Attributes:
        input_size: Height and width that the description fixes, or None.

    Raises:
        ConfigurationError: If an argument is invalid.
        ModelError: If the description is not that of an image classifier.
        TargetError: If the server refuses, or is unreachable while no output of it is stored.
    """

    charges = True
    rounding = 5e-3
    """The server's arithmetic is not known; it may be in half precision."""

    def __init__(
        self,
        url: str,
        *,
        reference: str,
        store_path: Path | None = None,
        cap: int | None = None,
        batch_size: int = 32,
        timeout: float = 30.0,
        retries: int = 5,
        headers: Mapping[str, str] | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if batch_size < 1 or (cap is not None and cap < 0):
            raise ConfigurationError("An endpoint needs a batch size of 1 or more, and a query cap of 0 or more.")
        self._endpoint = parse_endpoint(url)
        self._shown = self._endpoint.shown
        self.reference = self._shown if "?" in reference else reference  # keys may follow the question mark
        self.checksum = self._endpoint.identity(output_name)
        self.cap = cap
        self._batch_size = batch_size
        self._output_name = output_name
        self._transport = Transport(self._shown, timeout=timeout, retries=retries, headers=headers, sleep=sleep)
        self._stored = StoredOutputs(store_path, self.checksum, self._shown)
        self._metadata = self._describe(input_name)
        if self._metadata.versions and self._endpoint.version is None:
            # A model that is replaced behind its address is another target: its cached outputs are not this one's.
            self.checksum = hash_stably([self.checksum, list(self._metadata.versions)])
        self._layout = self._metadata.layout
        self.num_classes = self._metadata.num_classes
        self.channels = self._layout.channels
        self.input_size = self._layout.size

    @classmethod
    @override
    def open(cls, reference: ModelReference, options: LoadOptions) -> OpenedModel:
        backend = cls(
            reference.name,
            reference=str(reference),
            store_path=(options.cache or find_cache_folder()) / "endpoints" / "answers.sqlite",
            cap=options.max_queries,
            batch_size=options.batch_size or _REQUEST_SIZE,
            timeout=options.timeout,
            retries=options.retries,
        )
        return OpenedModel(backend, input_size=backend.input_size, paid=True)

    @property
    def batch_size(self) -> int:
        """Images per batch: as many as the server accepts in one request."""
        return self._batch_size

    @property
    def paid(self) -> int:
        """Number of distinct inputs whose outputs this endpoint has ever returned."""
        return self._stored.count()

    def close(self) -> None:
        """Close the connections and the file of stored outputs."""
        self._transport.close()
        self._stored.close()

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return stored outputs, and request the missing ones; each response is stored at once.

        Args:
            inputs: N×C×H×W float32, on any device.

        Raises:
            QueryBudgetExceeded: If the query cap would be exceeded; nothing is sent then.
            TargetError: If the server fails or returns something unusable. Outputs received so far are stored.
        """
        images = inputs.detach().float().cpu().contiguous().numpy()
        keys = hash_inputs(images)
        where = {key: position for position, key in enumerate(keys)}
        known = self._stored.known(where)
        missing = [key for key in where if key not in known]
        self._check_cap(len(missing))
        while missing:
            chunk = missing[: self._request_size]
            try:
                known.update(self._ask(chunk, images[[where[key] for key in chunk]]))
            except BatchTooLarge:
                self._batch_size = max(1, len(chunk) // 2)
                logger.info("%s refuses %d images at once; %d are sent now", self._shown, len(chunk), self._batch_size)
            else:
                missing = missing[len(chunk) :]
        if not keys:
            return torch.empty(0, self.num_classes or 0)
        lengths = {len(row) for row in known.values()}
        if len(lengths) != 1:
            raise TargetError(f"{self._shown} has returned rows of different lengths: {sorted(lengths)}.")
        self.num_classes = lengths.pop()
        return torch.from_numpy(np.stack([known[key] for key in keys]))

    def fresh_outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Request outputs again without storing them, to see whether the endpoint is deterministic.

        Args:
            inputs: N×C×H×W float32, on any device.

        Raises:
            TargetError: If the server fails or returns something unusable.
        """
        images = inputs.detach().float().cpu().contiguous().numpy()
        rows: list[Row] = []
        while len(rows) < len(images):
            chunk = images[len(rows) : len(rows) + self._request_size]
            try:
                rows += list(self._post(chunk).rows[: len(chunk)])
            except BatchTooLarge:
                self._batch_size = max(1, len(chunk) // 2)
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, self.num_classes or 0)

    @property
    def _request_size(self) -> int:
        fixed = self._layout.batch
        return self._batch_size if fixed is None else fixed

    def _ask(self, keys: list[bytes], images: NDArray[np.float32]) -> dict[bytes, Row]:
        """Outputs for at most one request of distinct inputs; another process may have stored some meanwhile."""
        with self._stored.turn():
            known = self._stored.known(keys)  # another process may have stored them during the wait
            chosen = [position for position, key in enumerate(keys) if key not in known]
            if not chosen:
                return known
            self._check_cap(len(chosen))
            response = self._post(images[chosen])
            rows = response.rows[: len(chosen)]
            # Minus infinity is the logarithm of zero. NaN is not stored, so that the image can be sent again.
            good = ~(np.isnan(rows) | (rows == np.inf)).any(axis=1) & np.isfinite(rows).any(axis=1)
            fresh = [keys[position] for position, fine in zip(chosen, good, strict=True) if fine]
            if fresh:
                self._stored.store(fresh, rows[good], response.version)
            if not good.all():
                raise TargetError(
                    f"{self._shown} returned NaN or infinity for {int((~good).sum())} of {len(chosen)} images.",
                    hint="Check the served model and the preprocessing (--normalize). Its other outputs are stored.",
                )
            return {**known, **dict(zip(fresh, rows, strict=True))}

    def _post(self, images: NDArray[np.float32]) -> InferenceResponse:
        """Send one request, padded to the batch size that the server fixes."""
        batch = self._layout.padded(self._layout.arrange(images, self.reference))
        body = build_request(batch, self._metadata, self._output_name)
        content = self._transport.post(
            self._endpoint.infer_url,
            body,
            batch=self._divisible(len(images)),
            limit=limit_response(len(batch), self.num_classes),
        )
        return read_response(content, len(batch), self._shown, self._output_name)

    def _divisible(self, count: int) -> int:
        return count if self._layout.batch is None else 1

    def _check_cap(self, new: int) -> None:
        if self.cap is None or new == 0:
            return
        paid = self.paid
        if paid + new > self.cap:
            raise QueryBudgetExceeded(
                f"The next {new} images would exceed the query cap of {self.cap} for {self._shown} ({paid} were paid "
                "for so far, in this and earlier runs).",
                hint="Raise --max-queries, or assess fewer records with --limit. Outputs received so far are stored.",
            )

    def _describe(self, input_name: str | None) -> ModelMetadata:
        if self._endpoint.model_url is None:
            return ModelMetadata(input_name or "input")
        try:
            content = self._transport.get(self._endpoint.model_url, limit=_DESCRIPTION_BYTES)
        except Unreachable as error:
            paid = self.paid
            if not paid:
                raise
            logger.warning("%s Continuing with the %d stored outputs.", error.message, paid)
            return ModelMetadata(input_name or "input")
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TargetError(f"{self._shown} does not describe its model in JSON.") from error
        return read_metadata(body, self._shown, input_name, self._output_name)


def hash_inputs(inputs: NDArray[np.float32]) -> list[bytes]:
    """Compute a 16-byte key per model input, N×C×H×W float32, from its shape and its exact bytes.

    `image_keys` would not do: these values are normalised, not images in [0, 1].
    """
    shape = repr(inputs.shape[1:]).encode()[:16]
    rows = np.ascontiguousarray(inputs, dtype="<f4")
    return [hashlib.blake2b(row.tobytes(), digest_size=16, person=shape).digest() for row in rows]
