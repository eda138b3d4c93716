"""The pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from securitynet.catalog.attack_board import list_attack_boards, make_attack_board
from securitynet.catalog.codebook import find_code, load_codebook
from securitynet.catalog.details import Details
from securitynet.catalog.leaderboard import COLUMNS, list_leaderboards, make_leaderboard
from securitynet.catalog.names import tell_apart
from securitynet.catalog.store import Measured
from securitynet.errors import SecurityNetError
from securitynet.web import downloads
from securitynet.web.drawing import draw_plot
from securitynet.web.loading import describe_loading, name_database
from securitynet.web.plot import WITHIN, list_colours, make_plot
from securitynet.web.security import REPORT_POLICY
from securitynet.web.similar import find_similar
from securitynet.web.site import Site, get_site
from securitynet.web.state import PER_PAGE, State
from securitynet.web.studies import Study, list_studies

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
RANGES = tuple(info.name for info in load_codebook().values() if info.range_filter)
SORTS = {"": "as collected"} | {
    sign + info.name: label
    for info in load_codebook().values()
    for sign, label in zip(("", "-"), info.sort_labels, strict=True)
    if label
}
MOST_COMPARED = 6
MOST_MEASURED_SORTS = 8
"""Measured names that the page offers to sort by; an address may name any."""
_PLOT = ("x", "y", "colour")


@router.get("/")
def search(request: Request) -> HTMLResponse:
    """Search."""
    site = get_site(request)
    state = State.read(request.query_params.multi_items(), also=("id",))
    matches, numbers = site.search.find_page(state)
    rows = site.search.read_rows(numbers)
    last = max(1, -(-matches.total // PER_PAGE))
    return _page(
        site,
        "search.html",
        here="search",
        state=state,
        entries=rows,
        names=tell_apart(row._asdict() for row in rows),
        accuracy={row.id: site.search.find_accuracy(row.number, row.claimed_accuracy) for row in rows},
        total=matches.total,
        everything=len(matches.snapshot.columns),
        first=(state.page - 1) * PER_PAGE + 1,
        last=last,
        facets=matches.snapshot.count_facets(state),
        ranges=RANGES,
        sorts=SORTS | _measured_sorts(matches.snapshot.columns.axes["measured"]),
        chips=_chips(state),
        before=replace(state, page=min(state.page - 1, last)).address() if state.page > 1 else None,
        after=replace(state, page=state.page + 1).address() if state.page < last else None,
    )


def _measured_sorts(names: list[str]) -> dict[str, str]:
    """Orders by the values that most entries have, both ways."""
    chosen = names[:MOST_MEASURED_SORTS]
    return {f"{sign}{name}": f"{name}, {way}" for name in chosen for sign, way in (("-", "highest"), ("", "lowest"))}


@router.get("/models/{identifier}")
def model(request: Request, identifier: str) -> Response:
    """A model's page."""
    site = get_site(request)
    columns = site.search.snapshot.columns
    with site.search.catalog.database.together():
        details = load_details(site, identifier)
        entry = details.entry
        if identifier != entry.id:
            return RedirectResponse(f"/models/{entry.id}")
        return _page(
            site,
            "model.html",
            here="model",
            details=details,
            entry=entry,
            accuracy=site.search.find_accuracy(details.number, entry.claimed_accuracy),
            groups=_grouped(details),
            measured_rows=(grouped := group_by_name(details.measured)),
            blind=find_blind_baselines(grouped),
            loading=describe_loading(entry, name_database(site.search.catalog.database)),
            history=site.search.catalog.history(details),
            similar=site.search.read_rows(find_similar(columns, details.number)),
        )


@router.get("/plot")
def plot_page(request: Request) -> HTMLResponse:
    """A plot; all of its state is in the address."""
    site = get_site(request)
    given = request.query_params
    state = State.read(given.multi_items(), also=(*_PLOT, "id"))
    # Datasets differ so much that points without colours would show little else.
    drawn = make_plot(site.search, state, given.get("x", ""), given.get("y", ""), given.get("colour", WITHIN[0]))
    return _page(
        site,
        "plot.html",
        here="plot",
        state=state,
        chips=_chips(state, "/plot", [(name, given[name]) for name in _PLOT if given.get(name)]),
        plot=drawn,
        drawing=draw_plot(drawn) if drawn else None,
        offered=site.search.snapshot.columns.axes,
        colours=list_colours(site.search.snapshot.columns),
    )


@router.get("/compare")
def compare(request: Request) -> HTMLResponse:
    """Chosen models side by side."""
    site = get_site(request)
    identifiers = list(dict.fromkeys(i.strip() for i in request.query_params.getlist("id") if i.strip()))
    more = identifiers[MOST_COMPARED:]
    chosen = {}
    with site.search.catalog.database.together():
        for identifier in identifiers[:MOST_COMPARED]:
            details = load_details(site, identifier)
            chosen[details.entry.id] = details
    several = list(chosen.values())
    known = [
        name
        for name in load_codebook()
        if name not in ("key", "preprocessing") and any(name in d.entry.known() for d in several)
    ]
    rows = [(name, [getattr(d.entry, name) for d in several]) for name in known]
    measured = [group_by_name(d.measured) for d in several]
    names = list(dict.fromkeys(name for of_model in measured for name in of_model))
    return _page(
        site,
        "compare.html",
        here="compare",
        several=several,
        names=tell_apart({**vars(details.entry), "id": details.entry.id} for details in several),
        rows=rows,
        measured_rows=[(name, [of_model.get(name, []) for of_model in measured]) for name in names],
        blind=[find_blind_baselines(of_model) for of_model in measured],
        left_out=len(more),
        most=MOST_COMPARED,
    )


@router.get("/leaderboard")
def leaderboard(request: Request, dataset: str = "", threat: str = "Linf") -> HTMLResponse:
    """Models of a dataset by their accuracy under attack."""
    site = get_site(request)
    offered = list_leaderboards(site.search.catalog)
    if not dataset and offered:
        dataset, threat = offered[0][:2]
    board = make_leaderboard(site.search.catalog, dataset[:200], threat) if dataset else None
    return _page(
        site,
        "leaderboard.html",
        here="leaderboard",
        offered=offered,
        attacked=list_attack_boards(site.search.catalog),
        board=board,
        columns=COLUMNS,
    )


@router.get("/leaderboard/attacks")
def attack_leaderboard(request: Request, dataset: str = "", sort: str = "") -> HTMLResponse:
    """Models of a dataset with every attack that was measured on them."""
    site = get_site(request)
    catalog = site.search.catalog
    attacked = list_attack_boards(catalog)
    chosen = dataset[:200] or (attacked[0][0] if attacked else "")
    board = make_attack_board(catalog, chosen, sort[:200] or None) if chosen else None
    shown = {"offered": list_leaderboards(catalog), "attacked": attacked, "board": board}
    return _page(site, "attack_leaderboard.html", here="leaderboard", **shown)


@router.get("/studies")
def study_list(request: Request) -> HTMLResponse:
    """Studies and their reports."""
    site = get_site(request)
    return _page(site, "studies.html", here="studies", studies=list_studies(site.roots), roots=len(site.roots))


@router.get("/studies/{number}/report.html")
def study_report(request: Request, number: int) -> Response:
    """A study's report, as it was written."""
    study = _study(get_site(request), number)
    if study.report is None:
        raise HTTPException(404, "This study has no report yet. Write it: securitynet report FOLDER.")
    return HTMLResponse(study.report.read_bytes(), headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/download.{kind}")
def download(request: Request, kind: str) -> Response:
    """What matches, as a file."""
    site = get_site(request)
    if kind not in downloads.KINDS:
        raise HTTPException(404, f"There are downloads as {', '.join(downloads.KINDS)}.")
    state = State.read(request.query_params.multi_items(), also=("id", *_PLOT))
    site.search.make_query(state)
    snapshot = site.search.snapshot
    matches = snapshot.match(state)
    numbers = snapshot.sort(matches, state.sort, 0, matches.total)
    return StreamingResponse(
        downloads.stream_file(kind, site.search.catalog.database, numbers),
        media_type=downloads.KINDS[kind],
        headers={"Content-Disposition": f'attachment; filename="securitynet-catalog.{kind}"'},
    )


@router.get("/api")
@router.get("/api/docs")
def api_docs(request: Request) -> HTMLResponse:
    """What the API offers, from its OpenAPI description."""
    site = get_site(request)
    return _page(site, "api.html", here="api", api=request.app.openapi(), codes=load_codebook().values())


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """Style, script, icon."""
    assets = get_site(request).assets
    if name not in assets:
        raise HTTPException(404, "There is no such file.")
    content, kind = assets[name]
    # The address names the version; so it can be kept.
    return Response(content, media_type=kind, headers={"Cache-Control": "max-age=3600"})


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    """For browsers that ask for it unbidden."""
    return await static(request, "icon.svg")


def load_details(site: Site, identifier: str) -> Details:
    """All about one model; an HTTP error 404 if there is none."""
    if "\0" in identifier or len(identifier) > 500:
        raise HTTPException(404, "There is no such model.")
    try:
        return site.search.catalog.details(identifier)
    except SecurityNetError as error:
        raise HTTPException(404, str(error)) from None


def group_by_name(measured: list[Measured]) -> dict[str, list[Measured]]:
    """Measured values by name; of each the latest trial's first, then published ones."""
    groups: dict[str, list[Measured]] = {}
    places = sorted(range(len(measured)), key=lambda n: (measured[n].name, measured[n].measured_by != "trial", -n))
    for one in (measured[place] for place in places):
        groups.setdefault(one.name, []).append(one)
    return groups


def find_blind_baselines(groups: dict[str, list[Measured]]) -> dict[str, Measured | None]:
    """What must be read beside the AUC of each membership attack: the AUC of the blind baseline, without the model.

    Args:
        groups: Measured values of a model by name.

    Returns:
        Name of each such AUC -> the blind baseline's, None where it was not measured.
    """
    beside: dict[str, Measured | None] = {}
    for name in groups:
        family, _, rest = name.partition(".")
        if family != "membership" or not rest.endswith(".auc") or rest == "blind.auc":
            continue
        blind = groups.get(f"{name.removesuffix('auc')}blind-auc") or groups.get("membership.blind.auc")
        beside[name] = blind[0] if blind else None
    return beside


def _page(site: Site, template: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(site.templates.get_template(template).render(**values))


def _study(site: Site, number: int) -> Study:
    for study in list_studies(site.roots):
        if study.number == number:
            return study
    raise HTTPException(404, "There is no such study.")


def _chips(state: State, path: str = "/", also: list[tuple[str, str]] | None = None) -> list[tuple[str, str, str]]:
    """What is filtered by: name, value, and the address without it."""
    return [
        (name, value, state.without(name, value).address(path, also or []))
        for name, values in state.filters.items()
        for value in values
    ]


def _grouped(details: Details) -> list[tuple[str, list[tuple[str, Any, str]]]]:
    """Known codes by group: name, value, source."""
    groups: dict[str, list[tuple[str, Any, str]]] = {}
    for name in details.entry.known():
        info = find_code(name)
        value = getattr(details.entry, name)
        groups.setdefault(info.group, []).append((name, value, details.sources.get(name, "")))
    return list(groups.items())
