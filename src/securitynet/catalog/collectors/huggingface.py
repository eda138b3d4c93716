"""The Hugging Face Hub, live: models tagged for image classification, the most recently changed first.

Incremental: a run ends where the last complete one began. Resumable: the address of the next page is stored with each
page, so that a run that was cut off goes on. Polite: requests are spaced, and the server's ``Retry-After`` is kept.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from pydantic import ValidationError
from typing_extensions import override

from securitynet.catalog.collectors.base import Collector
from securitynet.catalog.known import complete_entry, find_dataset_facts, find_security_codes
from securitynet.catalog.store import Item
from securitynet.errors import SecurityNetError
from securitynet.exchange import open_client

ENDPOINT = "https://huggingface.co"
_PATH = "/api/models"
_ARXIV = re.compile(r"arxiv:(\d{4}\.\d{4,5})$")


class HubError(SecurityNetError):
    """The Hub cannot be reached, or returns something other than a list of models."""


class HuggingFaceCollector(Collector):
    """One entry per model of the Hub that is tagged ``image-classification``.

    Args:
        endpoint: Address of the Hub.
        limit: Most models to take in this run; a later run goes on.
        page_size: Models a request.
        interval: Least seconds between two requests.
        attempts: How often a request is tried before giving up.
        sleep: How to wait (a test need not).
    """

    library = "huggingface"
    online = True

    def __init__(
        self,
        endpoint: str = ENDPOINT,
        *,
        limit: int | None = None,
        page_size: int = 100,
        interval: float = 0.5,
        attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._limit = limit
        self._page_size = page_size
        self._interval = interval
        self._attempts = attempts
        self._sleep = sleep

    def version(self) -> str:
        """The day of the harvest: the Hub has no versions."""
        return datetime.datetime.now(datetime.timezone.utc).date().isoformat()

    def collect(self) -> Iterator[Item]:
        """All models, from the newest on."""
        for items, _ in self.pages(None):
            yield from items

    @override
    def pages(self, cursor: Any) -> Iterator[tuple[list[Item], Any]]:
        # The mark holds ``next`` (an address), ``newest`` and ``since`` (times of change).
        mark = {"next": None, "newest": None, "since": None} | (cursor or {})
        taken = 0
        with open_client(timeout=30, follow_redirects=True) as client:
            address = mark["next"] or self._first()
            while address:
                models, following = self._fetch(client, address)
                mark["newest"] = mark["newest"] or (models[0].get("lastModified") if models else None)
                fresh = [m for m in models if not mark["since"] or str(m.get("lastModified", "")) > mark["since"]]
                taken += len(fresh)
                # ISO times of one form sort as text; models come newest first, so the first old one ends the run.
                done = len(fresh) < len(models) or following is None
                mark = (
                    {"next": None, "newest": None, "since": mark["newest"] or mark["since"]}
                    if done
                    else {**mark, "next": following}
                )
                yield [item for model in fresh if (item := _item(model)) is not None], dict(mark)
                address = None if done or (self._limit is not None and taken >= self._limit) else following
                if address:
                    self._sleep(self._interval)

    def _first(self) -> str:
        size = min(self._page_size, self._limit or self._page_size)
        query = f"sort=lastModified&direction=-1&limit={size}&full=true&cardData=true&config=true"
        return f"{self._endpoint}{_PATH}?filter=image-classification&{query}"

    def _fetch(self, client: httpx.Client, address: str) -> tuple[list[dict[str, Any]], str | None]:
        """The models of a page, and the address of the next one."""
        reason = ""
        for attempt in range(self._attempts):
            try:
                response = client.get(address)
            except httpx.HTTPError as error:
                reason = f"cannot be reached ({type(error).__name__})"
            else:
                if response.status_code == 200:
                    return _models(response), self._next(response)
                reason = f"answers {response.status_code}"
                if response.status_code != 429 and response.status_code < 500:
                    break
                waited = _seconds(response.headers.get("Retry-After"))
                if waited is not None:
                    self._sleep(waited)
                    continue
            if attempt + 1 < self._attempts:
                self._sleep(self._interval * 2**attempt)
        raise HubError(
            f"{self._endpoint} {reason}.", hint="What was collected is stored; run it again to go on from there."
        )

    def _next(self, response: httpx.Response) -> str | None:
        following = response.links.get("next", {}).get("url")
        if following is None:
            return None
        # Pages are requested from the server that was named, whatever its response says.
        return f"{self._endpoint}{_PATH}?{httpx.URL(following).query.decode()}"


def _models(response: httpx.Response) -> list[dict[str, Any]]:
    try:
        models = response.json()
    except ValueError:
        models = None
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise HubError("The Hub's answer is no list of models.", hint="Its interface may have changed.")
    return models


def _seconds(text: str | None) -> float | None:
    try:
        return min(max(float(text), 0.0), 3600.0) if text else None
    except ValueError:
        return None


def _item(model: dict[str, Any]) -> Item | None:
    """The entry of one model; None for private ones, and for what makes no entry."""
    name = str(model.get("id") or model.get("modelId") or "")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or model.get("private") or model.get("disabled"):
        return None
    card = _object(model.get("cardData"))
    tags = [tag for tag in model.get("tags") or () if isinstance(tag, str)]
    config = _object(model.get("config"))
    datasets = [tag.partition(":")[2] for tag in tags if tag.startswith("dataset:")]
    papers = [match[1] for tag in tags if (match := _ARXIV.match(tag))]
    licences = [tag.partition(":")[2] for tag in tags if tag.startswith("license:")]
    base = [tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:")]
    security = find_security_codes("huggingface", name)
    owner = name.partition("/")[0]
    codes: dict[str, Any] = {
        "key": f"hf:{name}",
        "source": "huggingface",
        "name": name,
        # timm publishes its weights on the Hub: the same models under another name.
        "reference": f"timm:{name.partition('/')[2]}" if owner == "timm" else f"hf:{name}",
        "revision": str(model["sha"]) if model.get("sha") else None,
        "license": licences[0] if licences else None,
        "weights_link": f"{ENDPOINT}/{name}",
        "purpose": "benchmark",
        "publisher_type": "model library" if owner == "timm" else None,
        "task_type": "classification",
        "head": "classifier",
        "dataset": _dataset(datasets),
        "membership": "unknown",
        "architecture": str(config.get("model_type") or "") or None,
        "claimed_accuracy": _accuracy(card),
        "code_link": f"{ENDPOINT}/{name}/tree/main",
        "notes": f"Fine-tuned from {base[0]}; papers: {', '.join(papers) or 'none named'}" if base else None,
    } | security
    try:
        entry, sources = complete_entry(codes)
    except ValidationError:
        return None
    return Item(entry, sources)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dataset(names: list[str]) -> str | None:
    """The first dataset that the catalog knows, else the first named one."""
    for name in names:
        facts = find_dataset_facts(name) or find_dataset_facts(name.rpartition("/")[2])
        if facts:
            return facts.name
    return names[0] if names else None


def _accuracy(card: dict[str, Any]) -> float | None:
    """Accuracy from the card's model index, where it states one as a share or in percent."""
    index = card.get("model-index")
    for model in index if isinstance(index, list) else ():
        for result in (model.get("results") or ()) if isinstance(model, dict) else ():
            for metric in (result.get("metrics") or ()) if isinstance(result, dict) else ():
                value = metric.get("value") if isinstance(metric, dict) and metric.get("type") == "accuracy" else None
                if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
                    return float(value) if value <= 1 else round(value / 100, 6)
    return None
