"""The page of the audit: what operators did, from the dashboard, the API and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Role, require
from abe_router.http.dashboard.page import PageRoute, Pages, read_number, route_path, tried
from abe_router.http.site import SharedAnswer, Site
from abe_router.operations.audit import KEPT, Act, acts

#: Acts on one page.
PAGE = 100


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the page."""
    shared: SharedAnswer[Sequence[Act]] = SharedAnswer(lambda: acts(site.source.backend, limit=KEPT))

    async def audit(request: Request) -> Response:
        require(request, Role.OPERATOR, "#")
        given = {name: request.query_params.get(name, "") for name in ("q", "author", "action")}
        found, failure = await tried(shared.get())
        fitting = [act for act in found or () if _fits(act, given)]
        page = read_number(request, "page", 1, most=KEPT)
        known = site.source.table.by_name
        return await pages.render(
            request,
            "audit.html",
            title="Audit",
            failure=failure,
            total=len(found or ()),
            fitting=len(fitting),
            shown=fitting[(page - 1) * PAGE : page * PAGE],
            first=(page - 1) * PAGE,
            page=page,
            pages=max(1, -(-len(fitting) // PAGE)),
            given=given,
            authors=sorted({act.author for act in found or ()}),
            actions=sorted({act.action for act in found or ()}),
            kept=KEPT,
            link=lambda target: f"/routes/{route_path(target)}" if target in known else "",
        )

    return [PageRoute("/audit", audit, Role.OPERATOR)]


def _fits(act: Act, given: Mapping[str, str]) -> bool:
    said = f"{act.author} {act.source} {act.action} {act.target} {act.why} {act.result}".lower()
    return (
        given["q"].lower() in said
        and given["author"] in ("", act.author)
        and given["action"] in ("", act.action)
    )
