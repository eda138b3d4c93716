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
from securitynet.files import cache_folder, stable_hash
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.targets.backends._answers import Answers, Row
from securitynet.models.targets.backends._protocol import (
    Answer,
    ModelMetadata,
    parse_endpoint,
    question,
    read_answer,
    read_metadata,
)
from securitynet.models.targets.backends._transport import BatchTooLarge, Transport, Unreachable
from securitynet.models.targets.backends.base import Backend, LoadOptions, OpenedModel

SCHEME = Scheme("http", "http://host:port/predict", aliases=("https",), address=True)

_REQUEST_SIZE = 32

logger = logging.getLogger(__name__)


class HttpBackend(Backend):
    """A model behind an address. Each distinct input is asked once, ever: answers are kept in a ledger.

    Args:
        url: ``http://HOST:PORT/v2/models/NAME[/versions/V][/infer]``, or any other address, to which the same body is
            posted and of which no description is asked.
        reference: As the user writes it. A query string, which may hold a key, is left out of it.
        ledger_path: SQLite file of paid answers, shared by all endpoints and runs; None remembers in memory only.
        cap: Most distinct inputs that may ever be asked of this endpoint, counted over the whole ledger; None for any.
        batch_size: Most images in a request; made smaller when the server refuses so many.
        timeout: Seconds to wait for an answer.
        retries: How often a failed request is repeated; see `Transport`.
        headers: Sent with each request, besides the authorisation from ``SECURITYNET_HTTP_TOKEN``.
        input_name: Name of the input; by default the one of the description, or ``input``.
        output_name: Which output holds the class scores; by default the first float one with a row per image.
        sleep: Waits between attempts.

    Attributes:
        input_size: Height and width that the description fixes, or None.

    Raises:
        ConfigurationError: If an argument makes no sense.
        ModelError: If the description is not that of an image classifier.
        TargetError: If the server refuses, or is not reached while the ledger holds no answers of it.
    """

    charges = True
    rounding = 5e-3
    """The server's arithmetic is not known; it may be in half precision."""

    def __init__(
        self,
        url: str,
        *,
        reference: str,
        ledger_path: Path | None = None,
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
        self._answers = Answers(ledger_path, self.checksum, self._shown)
        self._metadata = self._describe(input_name)
        if self._metadata.versions and self._endpoint.version is None:
            # A model that is replaced behind its address is another target: its cached answers are not this one's.
            self.checksum = stable_hash([self.checksum, list(self._metadata.versions)])
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
            ledger_path=(options.cache or cache_folder()) / "endpoints" / "answers.sqlite",
            cap=options.max_queries,
            batch_size=options.batch_size or _REQUEST_SIZE,
            timeout=options.timeout,
            retries=options.retries,
        )
        return OpenedModel(backend, input_size=backend.input_size, paid=True)

    @property
    def batch_size(self) -> int:
        """Images a batch: as many as the server takes in one request."""
        return self._batch_size

    @property
    def paid(self) -> int:
        """Distinct inputs that this endpoint has ever answered, according to the ledger."""
        return self._answers.count()

    def close(self) -> None:
        """Close connections and ledger."""
        self._transport.close()
        self._answers.close()

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `Backend.outputs`. What the ledger knows is not asked again; what is answered is stored at once.

        Raises:
            QueryBudgetExceeded: If the cap would be overrun; nothing is sent then.
            TargetError: If the server fails or answers with something unusable. Answers so far are kept.
        """
        images = inputs.detach().float().cpu().contiguous().numpy()
        keys = input_keys(images)
        where = {key: position for position, key in enumerate(keys)}
        known = self._answers.known(where)
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
            raise TargetError(f"{self._shown} has answered rows of different lengths: {sorted(lengths)}.")
        self.num_classes = lengths.pop()
        return torch.from_numpy(np.stack([known[key] for key in keys]))

    def fresh_outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `Backend.fresh_outputs`: asked once more and not kept, to see whether the endpoint answers the same.

        Raises:
            TargetError: If the server fails or answers with something unusable.
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
        """Answers for distinct inputs, at most a request's worth, from the server unless they have come meanwhile."""
        with self._answers.turn():
            known = self._answers.known(keys)  # another process may have asked while this one waited for its turn
            chosen = [position for position, key in enumerate(keys) if key not in known]
            if not chosen:
                return known
            self._check_cap(len(chosen))
            answer = self._post(images[chosen])
            rows = answer.rows[: len(chosen)]
            # Minus infinity is the logarithm of zero. NaN is no answer: it is not kept, so that it can be asked again.
            good = ~(np.isnan(rows) | (rows == np.inf)).any(axis=1) & np.isfinite(rows).any(axis=1)
            fresh = [keys[position] for position, fine in zip(chosen, good, strict=True) if fine]
            if fresh:
                self._answers.store(fresh, rows[good], answer.version)
            if not good.all():
                raise TargetError(
                    f"{self._shown} answered NaN or infinity for {int((~good).sum())} of {len(chosen)} images.",
                    hint="Check the served model and the preprocessing (--normalize). Its other answers are kept.",
                )
            return {**known, **dict(zip(fresh, rows, strict=True))}

    def _post(self, images: NDArray[np.float32]) -> Answer:
        """What the server answers to one request, padded to the batch size that it fixes."""
        batch = self._layout.padded(self._layout.arrange(images, self.reference))
        body = question(batch, self._metadata, self._output_name)
        content = self._transport.post(self._endpoint.infer_url, body, batch=self._divisible(len(images))).content
        return read_answer(content, len(batch), self._shown, self._output_name)

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
                hint="Raise --max-queries, or assess fewer records with --limit. Answers so far are kept.",
            )

    def _describe(self, input_name: str | None) -> ModelMetadata:
        if self._endpoint.model_url is None:
            return ModelMetadata(input_name or "input")
        try:
            response = self._transport.get(self._endpoint.model_url)
        except Unreachable as error:
            paid = self.paid
            if not paid:
                raise
            logger.warning("%s Going on with the %d answers that the ledger holds.", error.message, paid)
            return ModelMetadata(input_name or "input")
        try:
            body = json.loads(response.content)
        except ValueError as error:
            raise TargetError(f"{self._shown} does not describe its model in JSON.") from error
        return read_metadata(body, self._shown, input_name, self._output_name)


def input_keys(inputs: NDArray[np.float32]) -> list[bytes]:
    """A 16-byte key per model input, N×C×H×W float32: its shape and its exact bytes.

    `image_keys` would not do: these values are normalised, not images in [0, 1].
    """
    shape = repr(inputs.shape[1:]).encode()[:16]
    rows = np.ascontiguousarray(inputs, dtype="<f4")
    return [hashlib.blake2b(row.tobytes(), digest_size=16, person=shape).digest() for row in rows]
