"""The leaderboard of a folder of results, as a page and in the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse

from securitynet.records import Direction
from securitynet.results.collection import Collection, Evidence
from securitynet.results.leaderboard import Board, make_boards
from securitynet.web.site import get_site

router = APIRouter()

LONGEST_TEXT = 160
"""Characters of a text from a result that a page shows."""


class Reproduced(BaseModel):
    """A measured value of a model, and who reproduced it."""

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    reproduced_by: Annotated[list[str], Field(description="Trusted keys, other than the signer's.")]


class Ranked(BaseModel):
    """One model as one party measured it."""

    rank: Annotated[
        int | None, Field(description="1 + the number of models whose interval lies wholly on the better side.")
    ]
    why_not: Annotated[str, Field(description="Why it has no rank; empty if it has one.")]
    model: str
    checksum: str
    folder: str
    created: str
    membership: str
    evidence: Evidence
    signer: Annotated[str | None, Field(description="Name of the trusted key, or the id that an unknown key states.")]
    remarks: list[str]
    measurements: dict[str, Reproduced]


class Dataset(BaseModel):
    """The models that were measured on one dataset."""

    name: str
    fingerprint: str
    by: Annotated[str, Field(description="The measurement that ranks.")]
    better: Direction
    rows: list[Ranked]


class Leaderboard(BaseModel):
    """All that a folder of results holds."""

    datasets: list[Dataset]
    skipped: Annotated[dict[str, int], Field(description="Why files were not read -> how many.")]
    keys: Annotated[list[str], Field(description="Names of the trusted keys.")]


_BY = Query(description="Name of the measurement that ranks, where it was measured.", max_length=500)


@router.get("/results", include_in_schema=False, response_class=HTMLResponse)
def show_results(request: Request, by: Annotated[str, _BY] = "") -> HTMLResponse:
    """The leaderboard."""
    site = get_site(request)
    results = site.results
    collection = results.read() if results is not None else Collection((), {}, 0)
    page = site.templates.get_template("results.html").render(
        here="results",
        given=results is not None,
        boards=make_boards(collection, by),
        collection=collection,
        shorten=_shorten,
        explanations=EXPLANATIONS,
    )
    return HTMLResponse(page)


@router.get("/api/results")
def list_results(request: Request, by: Annotated[str, _BY] = "") -> Leaderboard:
    """The results of the folder that was given to the server: for each dataset, models ranked by a measurement."""
    results = get_site(request).results
    if results is None:
        return Leaderboard(datasets=[], skipped={}, keys=[])
    collection = results.read()
    datasets = [_describe(board) for board in make_boards(collection, by)]
    return Leaderboard(datasets=datasets, skipped=dict(collection.skipped), keys=sorted(results.keys))


EXPLANATIONS: dict[Evidence, str] = {
    "reproduced": "signed by a trusted key, and reproduced by another one",
    "signed": "signed by a trusted key, and unchanged since",
    "unknown key": "signed, but by no key that this server trusts",
    "unsigned": "not signed: anybody may have written it",
    "changed": "changed after it was signed or written",
}
"""What each kind of evidence means."""


def _describe(board: Board) -> Dataset:
    rows = []
    for row in board.rows:
        result = row.result
        target, dataset = result.document.target, result.document.dataset
        measurements = {
            name: Reproduced(
                **{part: getattr(m, part) for part in ("value", "low", "high", "level", "n")},
                reproduced_by=result.list_reproducers(name),
            )
            for name, m in row.measurements.items()
        }
        values: dict[str, Any] = {
            "rank": row.rank, "why_not": row.why_not, "model": target.reference, "checksum": target.checksum,
            "folder": result.folder, "created": result.document.created, "membership": dataset.membership,
            "evidence": result.evidence, "signer": result.signer, "remarks": list(result.remarks),
        }  # fmt: skip
        rows.append(Ranked(**values, measurements=measurements))
    return Dataset(name=board.name, fingerprint=board.fingerprint, by=board.by, better=board.direction, rows=rows)


def _shorten(text: str, most: int = LONGEST_TEXT) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
