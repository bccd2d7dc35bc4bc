"""The pages of dead letters: the groups of all routes, and the list of one route with its filter."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Role, caller_of, require
from abe_router.http.dashboard import dead_acts, dead_letter, replays
from abe_router.http.dashboard.dead_view import (
    DeadView,
    GroupRow,
    LetterQuery,
    notice_of,
    path_of,
    where_of,
)
from abe_router.http.dashboard.page import PageRoute, Pages, read_number
from abe_router.http.dead_letters import path_route
from abe_router.http.site import Site
from abe_router.operations.dead_letters import DeadLetterSummary, summary
from abe_router.operations.subscriptions import require_subscription
from abe_router.text import mask_credentials

#: Groups of their own page and of the list of a route, and dead letters of a list.
GROUPS, SIDE, LETTERS = 100, 50, 50
#: The orders of the groups: what is compared, the largest first.
ORDERS = {
    "count": lambda row: -row.group.count,
    "last": lambda row: -row.group.last_seen,
    "first": lambda row: -row.group.first_seen,
    "recent": lambda row: -row.recent,
    "route": lambda row: row.group.route,
}


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the pages of dead letters and of their replays."""
    view = DeadView(site)

    async def groups(request: Request) -> Response:
        caller, query = require(request, Role.VIEWER), request.query_params
        state = await view.index.refresh()
        found = [each for each in view.index.routes() if caller.allows_route(Role.VIEWER, each.name)]
        rows = [row for each in found for row in view.rows(each, caller)]
        shown = [row for row in rows if _fits(row, query.get("q", ""))] if query.get("q") else rows
        order = query.get("sort", "last")
        if order == "recent":
            shown = list(view.with_trends(shown))
        shown.sort(key=ORDERS.get(order, ORDERS["last"]))
        number = read_number(request, "page", 1, most=10**6)
        return await pages.render(
            request,
            "dead.html",
            title="Dead letters",
            rows=view.with_trends(shown[(number - 1) * GROUPS : number * GROUPS]),
            count=len(shown),
            groups=len(rows),
            total=sum(map(len, found)),
            q=query.get("q", ""),
            order=order if order in ORDERS else "last",
            page=number,
            last_page=-(-len(shown) // GROUPS),
            running=await _running(view, request),
            state=state,
            note=notice_of(state),
        )

    async def letters(request: Request) -> Response:
        route = path_route(request)
        caller = require(request, Role.VIEWER, route[0])
        query = LetterQuery.of(request.query_params)
        state = await view.index.refresh()
        part, (where, wrong) = view.index.route(route), where_of(query)
        note = notice_of(state)
        if not part.ids and not state.error:
            await require_subscription(site.source.backend, route, site.source.table.by_name)
        found = part.positions(where) if where is not None else []
        sees, looked = caller.allows(Role.READER, route[0]), None
        if query.payload and where is not None and not sees:
            found, wrong = [], "A filter on payloads needs the role reader."
        newest = request.query_params.get("sort") != "first"
        number = read_number(request, "page", 1, most=10**6)
        shown: Sequence[DeadLetterSummary] = ()
        try:
            if query.payload and found:
                candidates = len(found)
                found, looked = await view.search(part, found, query.payload)
                looked = looked if looked < candidates else None
            ordered = found[::-1] if newest else found
            chosen = ordered[(number - 1) * LETTERS : number * LETTERS]
            shown = [summary(each) for each in await part.fetch(site.source.backend, sorted(chosen))]
        except BackendError as error:
            note = note or f"The backend does not answer: {mask_credentials(str(error))}"
        if not sees:
            shown = [msgspec.structs.replace(each, message="") for each in shown]
        return await pages.render(
            request,
            "dead_list.html",
            title=f"Dead letters of {part.name}",
            route=part.name,
            route_key=route[0],
            letters_path=path_of(route),
            rows=view.with_trends(view.rows(part, caller)[:SIDE]),
            groups=len(view.rows(part, caller)),
            letters=shown[::-1] if newest else shown,
            first_row=(number - 1) * LETTERS + 1,
            count=len(found),
            total=len(part),
            filter=query,
            wrong=wrong,
            looked=looked,
            kinds=sorted(part.kinds),
            newest=newest,
            page=number,
            last_page=-(-len(found) // LETTERS),
            running=await _running(view, request, part.name),
            state=state,
            note=note,
            sees=sees,
            link=lambda id: path_of(route, id),
        )

    return [
        PageRoute("/dead", groups, Role.VIEWER),
        PageRoute("/dead/{key}/{group}", letters, Role.VIEWER),
        *dead_acts.routes(site, pages, view),
        *dead_letter.routes(site, pages, view),
        *replays.routes(site, pages, view),
    ]


def _fits(row: GroupRow, text: str) -> bool:
    """Return whether a group has each word of a text in its route, fault, kind or fingerprint."""
    where = f"{row.group.route} {row.title} {row.detail} {row.group.kind} {row.group.group}".lower()
    return all(word in where for word in text.lower().split())


async def _running(view: DeadView, request: Request, route: str = "") -> Sequence[object]:
    """Return the replays that run; none if the backend does not answer, which the page says anyway."""
    try:
        return await view.running(caller_of(request), route)
    except BackendError:
        return ()
