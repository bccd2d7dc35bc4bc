"""The page of one dead letter: its payload, where it fails, its traceback, and where it came from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.backend import Backend, DeadLetter
from abe_router.errors import KeyInvalid, PayloadMalformed, Violation
from abe_router.http.access import Caller, Role, require
from abe_router.http.dashboard.dead_view import (
    DeadView,
    LetterQuery,
    notice_of,
    path_of,
    where_of,
)
from abe_router.http.dashboard.page import PageRoute, Pages, route_path
from abe_router.http.dashboard.payload import PayloadView, payload_view, traceback_view
from abe_router.http.dashboard.republish import republish_refusal
from abe_router.http.dead_letters import path_route
from abe_router.http.site import Site
from abe_router.messages.message import decode
from abe_router.observe.trace_context import trace_id_of
from abe_router.operations.dead_letters import DeadLetterDetail, detail
from abe_router.operations.dead_try import Trial, TryResult
from abe_router.routing.policies import CAUSE, HOPS
from abe_router.routing.table import RouteTable

#: Most violations that the page lists, and most dead letters of a chain of causes.
MOST_VIOLATIONS, MOST_CAUSES = 20, 16


@dataclass(frozen=True)
class Findings:
    """What a page says of one dead letter: itself, its payload, and what the present file makes of it.

    `violations` are those of the present schemas. `emitters` are the routes that emit its key.
    """

    letter: DeadLetterDetail
    payload: PayloadView
    trial: TryResult
    violations: Sequence[Violation]
    emitters: Sequence[str]


@dataclass(frozen=True)
class Cause:
    """A message whose handler emitted the next one. `path` is its page if it is a dead letter, else empty."""

    id: str
    path: str = ""
    route: str = ""


def routes(site: Site, pages: Pages, view: DeadView) -> list[Route]:
    """Return the page."""

    async def letter(request: Request) -> Response:
        route, id = path_route(request), request.path_params["id"]
        caller = require(request, Role.READER, route[0])
        backend, table = site.source.backend, site.source.table
        query = LetterQuery.of(request.query_params)
        state = await view.index.refresh()
        part, (where, _) = view.index.route(route), where_of(query)
        whole = await view.index.find(route, id)
        findings = await asyncio.to_thread(_findings, whole, table)
        positions = part.positions(where) if where is not None and not query.payload else []
        ids = [part.ids[at] for at in positions]
        at = ids.index(id) if id in ids else None
        return await pages.render(
            request,
            "dead_letter.html",
            title=f"Dead letter {id} of {part.name}",
            route=part.name,
            route_key=route[0],
            letters_path=path_of(route),
            letter=findings.letter,
            payload=findings.payload,
            trial=findings.trial,
            violations=findings.violations[:MOST_VIOLATIONS],
            emitters=[each for each in findings.emitters if caller.allows_route(Role.VIEWER, each)],
            route_pages={each: f"/routes/{route_path(each)}" for each in (part.name, *findings.emitters)},
            traceback=traceback_view(findings.letter.traceback) if findings.letter.traceback else (),
            former=path_of(route, findings.letter.former) if findings.letter.former else "",
            causes=await _causes(view, backend, caller, whole),
            trace=trace_id_of(findings.letter.headers),
            hops=findings.letter.headers.get(HOPS, ""),
            filter=query,
            number=None if at is None else at + 1,
            count=len(ids),
            group_count=part.count(range(len(part))).get(findings.letter.group, 0),
            previous=path_of(route, ids[at - 1]) if at else "",
            next=path_of(route, ids[at + 1]) if at is not None and at + 1 < len(ids) else "",
            raw=f"/v1/dead-letters/{route_path(part.name)}/{quote(id, safe='')}",
            note=notice_of(state),
            republish_refusal=republish_refusal(table, caller, whole.message.key),
        )

    return [PageRoute("/dead/{key}/{group}/{id}", letter, Role.READER)]


def _findings(whole: DeadLetter, table: RouteTable) -> Findings:
    """Return what there is to say of a dead letter. A payload may be large."""
    shown = detail(whole, table)
    violations = _violations(whole, table)
    marks = {each.pointer: f"expected {each.expected}, found {each.found}" for each in reversed(violations)}
    if shown.kind == "invalid":
        marks.setdefault(shown.pointer, _first_line(shown.message))
    trial = Trial(whole.route, table)
    trial.add([whole])
    return Findings(
        letter=shown,
        payload=payload_view(shown.payload, marks),
        trial=trial.result(),
        violations=violations,
        emitters=[
            each.name for each in table.routes if each.emit is not None and each.emit.key == whole.message.key
        ],
    )


def _violations(whole: DeadLetter, table: RouteTable) -> Sequence[Violation]:
    """Return how the payload breaks the present schemas. Sensitive values are masked in them."""
    try:
        contract = table.contract(whole.message.key)
        payload = decode(whole.message.body)
    except (KeyInvalid, PayloadMalformed):
        return ()
    return [each for schema in contract.schemas for each in schema.violations(payload)]


async def _causes(view: DeadView, backend: Backend, caller: Caller, whole: DeadLetter) -> Sequence[Cause]:
    """Return the messages that led to this one, the first one first, as far as they are known.

    A message names the one whose handler emitted it. Only if that is a dead letter too, its own is known.
    """
    causes: list[Cause] = []
    while (cause := whole.message.headers.get(CAUSE, "")) and len(causes) < MOST_CAUSES:
        known = [
            (part, part.messages.index(cause))
            for part in view.index.routes()
            if cause in part.messages and caller.allows_route(Role.READER, part.name)
        ]
        found = await known[0][0].fetch(backend, [known[0][1]], bodies=True) if known else ()
        if not found:
            causes.append(Cause(cause))
            break
        part, whole = known[0][0], found[0]
        causes.append(Cause(cause, path_of(part.route, whole.id), part.name))
    return causes[::-1]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]
