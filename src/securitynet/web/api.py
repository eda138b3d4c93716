"""The JSON API; its description is at ``/api/openapi.json`` and, to be read, at ``/api/docs``."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from securitynet.catalog.codebook import CodeInfo, as_json, load_codebook
from securitynet.web.pages import load_details
from securitynet.web.plot import make_plot
from securitynet.web.search import Choice
from securitynet.web.similar import find_similar
from securitynet.web.site import get_site
from securitynet.web.state import MOST_PAGE, MOST_PER_PAGE, MOST_TEXT, MOST_VALUES, PER_PAGE, State, parse_whole
from securitynet.web.studies import list_studies

_PLOT = ("x", "y", "colour")
_PAGED = ("per_page",)

_NUMBER = r"-?[0-9]{1,9}([.][0-9]{1,6})?"
_NUMBERS = rf"^(none|any|!?({_NUMBER}|{_NUMBER}[.][.]({_NUMBER})?|[.][.]{_NUMBER}|[<>]=?{_NUMBER}))$"
_TEXT = "^[A-Za-z0-9][A-Za-z0-9 ._+/-]{0,98}$"
_LINK = "^https?://[A-Za-z0-9._/-]{1,99}$"


class Problem(BaseModel):
    """What is wrong with a request, and what to do."""

    error: str
    hint: str | None = None


router = APIRouter(
    prefix="/api",
    responses={
        400: {"model": Problem, "description": "A parameter makes no sense; the message says which, and why."},
        422: {"model": Problem, "description": "A parameter is of the wrong type."},
    },
)


class Models(BaseModel):
    """A page of models."""

    total: Annotated[int, Field(description="How many match.")]
    page: int
    per_page: int
    next: Annotated[str | None, Field(description="Address of the next page.")]
    models: Annotated[list[dict[str, Any]], Field(description="Their known codes, with `id`.")]


class Value(BaseModel):
    """A measured value."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    measured_by: str
    source: str


class Model(BaseModel):
    """All that is known about a model."""

    id: str
    codes: dict[str, Any]
    sources: Annotated[dict[str, str], Field(description="Code -> where its value comes from.")]
    measurements: list[Value]
    version: int
    withdrawn: bool
    duplicate_of: str | None
    duplicates: dict[str, str]


class Change(BaseModel):
    """A change of an entry."""

    version: int
    time: str
    kind: str
    source: str
    actor: str
    note: str | None
    differences: Annotated[dict[str, list[Any]], Field(description="Code -> [before, after].")]


class FacetCounts(BaseModel):
    """How the matches divide by one code, as if nothing of it were chosen."""

    code: str
    values: list[Choice]
    left_out: Annotated[int, Field(description="Less frequent values that are not listed.")]


class Correlation(BaseModel):
    """A correlation with its 95% interval."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    method: str


class GroupCorrelation(BaseModel):
    """Pearson's correlation in one group."""

    group: str
    n: int
    r: float


class PlotPoint(BaseModel):
    """A model in a plot."""

    id: str
    name: str
    x: float
    y: float
    group: str


class PlotData(BaseModel):
    """A plot's data."""

    x: str
    y: str
    colour: str
    log: Annotated[list[bool], Field(description="Whether x and y are on logarithmic axes.")]
    total: Annotated[
        int,
        Field(description="Models with both values; all follow up to 2,000 of them, of more 1,000 chosen at random."),
    ]
    lacking: int
    correlation: Correlation
    within: Annotated[
        str,
        Field(description="Codes within whose groups the correlation is taken, separated by commas; empty if none."),
    ]
    by_group: Annotated[
        list[GroupCorrelation], Field(description="Pearson's r in each group of the colour, or of these codes.")
    ]
    mixed: Annotated[str | None, Field(description="A sentence, if groups contradict each other or the pooled value.")]
    points: list[PlotPoint]


class StudyListed(BaseModel):
    """A study."""

    number: int
    name: str
    report: str | None
    written: str


def _filters(*names: str) -> dict[str, Any]:
    """Parameters for OpenAPI: text, order and one filter per code."""
    common = [
        {"name": "q", "in": "query", "description": "Words that must all occur; `res*` is a beginning.",
         "schema": {"type": "string", "maxLength": MOST_TEXT, "pattern": "^[^\\x00]*$"}},
        {"name": "sort", "in": "query", "description": "A code, with `-` before it for descending.",
         "schema": {"type": "string", "enum": [
             sign + info.name for info in load_codebook().values() if info.ordered for sign in ("", "-")]}},
    ]  # fmt: skip
    paged = {
        "page": {"type": "integer", "minimum": 1, "maximum": MOST_PAGE, "default": 1},
        "per_page": {"type": "integer", "minimum": 1, "maximum": MOST_PER_PAGE, "default": PER_PAGE},
    }
    parameters: list[dict[str, Any]] = [item for item in common if item["name"] in names]
    parameters += [{"name": name, "in": "query", "schema": paged[name]} for name in names if name in paged]
    for info in load_codebook().values():
        what = "`N`, `LOW..HIGH`, `LOW..`, `..HIGH`, `>=N`" if info.numeric else "values; repeat it for several"
        parameters.append(
            {
                "name": info.name,
                "in": "query",
                "description": f"{info.meaning} Filter: {what}, `!VALUE`, `none`, `any`.",
                "schema": _describe_values(info),
                "style": "form",
                "explode": True,
            }
        )
    return {"parameters": parameters}


def _describe_values(info: CodeInfo) -> dict[str, Any]:
    """The values of a filter, as far as a schema can say: every request that fits is answered."""
    if info.numeric:
        return {"type": "string", "pattern": _NUMBERS}
    if info.kind == "object":
        return {"type": "string", "enum": ["none", "any"]}
    items: dict[str, Any] = {"pattern": _LINK if info.name.endswith("link") else _TEXT}
    if info.values or info.kind == "boolean":
        items = {"enum": list(info.values) or ["true", "false"]}
    return {"type": "array", "items": {"type": "string", **items}, "maxItems": MOST_VALUES}


@router.get("/models", openapi_extra=_filters("q", "sort", "page", "per_page"))
def models(request: Request) -> Models:
    """Search: by words and by any code."""
    pairs = request.query_params.multi_items()
    state = State.read(pairs, also=_PAGED)
    per_page = parse_whole(request.query_params.get("per_page", str(PER_PAGE)), "per_page", 1, MOST_PER_PAGE)
    search = get_site(request).search
    matches, numbers = search.find_page(state, per_page)
    following = replace(state, page=state.page + 1).address("/api/models", [("per_page", str(per_page))])
    return Models(
        total=matches.total,
        page=state.page,
        per_page=per_page,
        next=following if state.page * per_page < matches.total else None,
        models=[{"id": entry.id, **entry.known()} for entry in search.read_entries(numbers)],
    )


@router.get("/models/{identifier}", responses={404: {"model": Problem}})
def model(request: Request, identifier: str) -> Model:
    """One model, by its id, key, reference or unique name: annotations, sources, measurements."""
    details = load_details(get_site(request), identifier)
    return Model(
        id=details.entry.id,
        codes=details.entry.known(),
        measurements=[Value(**{k: _finite(v) for k, v in asdict(one).items()}) for one in details.measured],
        **{name: getattr(details, name) for name in ("sources", "version", "withdrawn", "duplicate_of", "duplicates")},
    )


@router.get("/models/{identifier}/history", responses={404: {"model": Problem}})
def history(request: Request, identifier: str) -> list[Change]:
    """Every change of one model, the first one first."""
    site = get_site(request)
    details = load_details(site, identifier)
    return [
        Change(
            **{name: getattr(state, name) for name in ("version", "time", "kind", "source", "actor", "note")},
            differences={name: list(ends) for name, ends in state.differences.items()},
        )
        for state in site.search.catalog.history(details)
    ]


@router.get("/models/{identifier}/similar", responses={404: {"model": Problem}})
def similar_models(request: Request, identifier: str) -> list[dict[str, Any]]:
    """The models most like one."""
    search = get_site(request).search
    similar = search.read_entries(
        find_similar(search.snapshot.columns, load_details(get_site(request), identifier).number)
    )
    return [{"id": one.id, **one.known()} for one in similar]


@router.get("/facets", openapi_extra=_filters("q"))
def facets(request: Request) -> list[FacetCounts]:
    """How what matches divides by the codes with few values."""
    state = State.read(request.query_params.multi_items())
    search = get_site(request).search
    search.make_query(state)
    return [
        FacetCounts(
            code=facet.name,
            values=[*facet.choices, *facet.more],
            left_out=facet.left_out,
        )
        for facet in search.snapshot.count_facets(state)
    ]


@router.get("/plot", openapi_extra=_filters("q"))
def plot_data(
    request: Request,
    x: Annotated[str, Query(description="Field across: a code with numbers, or a measured name.")] = "",
    y: Annotated[str, Query(description="Field upwards.")] = "",
    colour: Annotated[str, Query(description="Code that colours.")] = "",
) -> PlotData | None:
    """Two fields of what matches, with their correlation; null if nothing can be plotted."""
    state = State.read(request.query_params.multi_items(), also=_PLOT)
    drawn = make_plot(get_site(request).search, state, x.strip(), y.strip(), colour.strip())
    if drawn is None:
        return None
    estimate = drawn.correlation
    return PlotData(
        x=drawn.x,
        y=drawn.y,
        colour=drawn.colour,
        log=list(drawn.log),
        total=drawn.total,
        lacking=drawn.lacking,
        correlation=Correlation(
            **{name: _finite(getattr(estimate, name)) for name in ("value", "low", "high", "p")},
            n=estimate.n,
            method=estimate.method,
        ),
        within=",".join(drawn.within),
        by_group=[GroupCorrelation(group=g.group, n=g.n, r=g.r) for g in drawn.by_group],
        mixed=drawn.mixed,
        points=[PlotPoint(id=p.id, name=p.name, x=p.x, y=p.y, group=p.group) for p in drawn.points],
    )


@router.get("/codes")
def codes() -> list[dict[str, Any]]:
    """The codebook: every code with its type, values, range and meaning."""
    return as_json()


@router.get("/studies")
def study_list(request: Request) -> list[StudyListed]:
    """Studies whose folders were given to the server."""
    return [
        StudyListed(
            number=study.number,
            name=study.name,
            report=f"/studies/{study.number}/report.html" if study.report else None,
            written=study.written,
        )
        for study in list_studies(get_site(request).roots)
    ]


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
