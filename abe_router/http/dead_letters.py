"""The endpoints of dead letters: list, groups, one, try and purge. Replays have a module of their own."""

from __future__ import annotations

import asyncio
import math

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.backend import SubscriptionName
from abe_router.http.access import Caller, Role, caller_of, require
from abe_router.http.endpoint import Endpoint, Parameter, json_content, read_real, read_whole
from abe_router.http.problem import invalid
from abe_router.http.reading import read_body
from abe_router.http.site import Site, json_response
from abe_router.messages.pattern import is_group, is_pattern
from abe_router.operations.dead_groups import DeadGroup, DeadGroups, dead_groups, select
from abe_router.operations.dead_letters import (
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLetterPage,
    DeadLetterSummary,
    Moved,
    detail,
    find_dead_letter,
    list_dead_letters,
    purge,
    routes_with_dead_letters,
)
from abe_router.operations.dead_try import TryResult, try_dead_letters
from abe_router.operations.subscriptions import require_subscription

#: Dead letters of one answer: by default, and at most.
DEFAULT_LIMIT, MOST = 100, 1_000
#: How many requests read whole lists of dead letters at a time.
READERS = 2


class SelectRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters of a route are meant: some ids, or all that satisfy the conditions.

    Without ids and conditions, `all` must be true. `first` limits their number. With `dry_run`, nothing
    happens. `why` is the reason, which the audit shows.
    """

    ids: tuple[str, ...] = ()
    all: bool = False
    kind: str | None = None
    key: str | None = None
    message_id: str | None = None
    since: float = 0.0
    until: float = math.inf
    group: str | None = None
    revision: str | None = None
    first: int | None = None
    dry_run: bool = False
    why: str = ""

    def where(self) -> DeadLetterFilter | None:
        """Return the conditions, None if there are none; raise Refusal if it does not say what is meant."""
        found = DeadLetterFilter(
            kind=self.kind,
            key=self.key,
            message_id=self.message_id,
            since=self.since,
            until=self.until,
            group=self.group,
            revision=self.revision,
        )
        check_filter(found)
        conditions = None if found == DeadLetterFilter() else found
        if [bool(self.ids), self.all, conditions is not None].count(True) != 1:
            raise invalid("give either `ids`, or conditions, or `all: true`")
        if self.first is not None and self.first < 1:
            raise invalid("`first` is at least 1")
        return conditions


class PurgeRequest(SelectRequest, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters are deleted. `force` deletes them under living workers too, and needs `why`."""

    force: bool = False


def routes(site: Site) -> list[Route]:
    """Return the endpoints."""
    reading = asyncio.Semaphore(READERS)

    async def dead_letters(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        query = request.query_params
        left = limit = min(read_whole(query.get("limit"), "limit", DEFAULT_LIMIT), MOST)
        after, where = query.get("after", ""), _filter(request)
        if after and "route" not in query:
            raise invalid("`after` needs a route, because an id belongs to one route")
        found: list[DeadLetterSummary] = []
        more = False
        async with reading:
            for route in await _allowed_routes(request, site):
                page = await list_dead_letters(
                    site.source.backend, route, where=where, limit=max(1, left), after=after
                )
                if page.dead_letters and not left:
                    more = True
                    break
                found += page.dead_letters
                more, left = page.more, limit - len(found)
                if more:
                    break
        return json_response(DeadLetterPage(tuple(_shown(caller, each) for each in found), more))

    async def dead_letter_groups(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        where = _filter(request)
        found: list[DeadGroup] = []
        others = 0
        async with reading:
            for route in await _allowed_routes(request, site):
                some = await dead_groups(site.source.backend, route, where=where)
                found += some.groups
                others += some.others
        found.sort(key=lambda group: -group.count)
        return json_response(shown_groups(caller, DeadGroups(tuple(found), others)))

    async def dead_letter(request: Request) -> Response:
        route = path_route(request)
        require(request, Role.READER, route[0])
        async with reading:
            found = await find_dead_letter(site.source.backend, route, request.path_params["id"])
        return json_response(
            await asyncio.to_thread(detail, found, site.source.table)
        )  # it masks the payload

    async def try_dead_letter_selection(request: Request) -> Response:
        route, asked = path_route(request), await read_body(request, SelectRequest)
        require(request, Role.READER, route[0])
        if asked.ids:
            raise invalid("give conditions, or `all: true`")
        async with reading:
            found = await try_dead_letters(site.source.backend, site.source.table, route, where=asked.where())
        return json_response(found[0])

    async def purge_dead_letters(request: Request) -> Response:
        route, asked = path_route(request), await read_body(request, PurgeRequest)
        caller = require(request, Role.OPERATOR, route[0])
        backend = site.source.backend
        await require_subscription(backend, route, site.source.table.by_name)
        async with reading:
            selection = await select(backend, route, ids=asked.ids, where=asked.where(), first=asked.first)
        if asked.dry_run:
            return json_response(shown_groups(caller, selection.groups))
        author = caller.author(request)
        moved = await purge(backend, route, selection.ids, author=author, why=asked.why, force=asked.force)
        return json_response(Moved(moved.requested + selection.missing, moved.done))

    path = "/v1/dead-letters/{key}/{group}"
    filters = [
        Parameter("route", "the route, as KEY/GROUP; by default all"),
        Parameter("kind", "the kind of the reason, such as `failed` or `invalid`"),
        Parameter("key", "a key or a pattern that the key of the message matches"),
        Parameter("message_id", "the id of the message"),
        Parameter("group", "the fingerprint of the reason"),
        Parameter("revision", "the revision of the routes file, or its beginning"),
        Parameter("since", "the earliest last failure, in seconds since the epoch", type=float),
        Parameter("until", "the latest last failure, in seconds since the epoch", type=float),
    ]
    paging = [
        Parameter("limit", f"at most so many; {DEFAULT_LIMIT} by default, at most {MOST:,}", type=int),
        Parameter("after", "continue after the dead letter with this id"),
    ]
    selection = json_content(SelectRequest, "which dead letters are meant")
    malformed = {400: "the request is malformed", 404: "the route or the dead letter is unknown"}
    return [
        Endpoint(
            "GET",
            "/v1/dead-letters",
            dead_letters,
            Role.VIEWER,
            "Dead letters without their payloads, oldest first for each route",
            details="Callers that may not see payloads do not see the messages of errors either.",
            parameters=[*filters, *paging],
            answers={200: json_content(DeadLetterPage, "the dead letters")},
            problems=malformed,
        ),
        Endpoint(
            "GET",
            "/v1/dead-letters/groups",
            dead_letter_groups,
            Role.VIEWER,
            "Dead letters grouped by their reasons, the largest group first",
            parameters=filters,
            answers={200: json_content(DeadGroups, "the groups")},
            problems=malformed,
        ),
        Endpoint(
            "POST",
            f"{path}/try",
            try_dead_letter_selection,
            Role.READER,
            "What would become of dead letters with the present routes file; no handler runs",
            parameters=route_parameters(),
            body=selection,
            answers={200: json_content(TryResult, "the number of dead letters by what becomes of them")},
            problems=malformed,
        ),
        Endpoint(
            "POST",
            f"{path}/purge",
            purge_dead_letters,
            Role.OPERATOR,
            "Delete dead letters permanently",
            parameters=route_parameters(),
            body=json_content(PurgeRequest, "which dead letters are deleted"),
            answers={200: json_content(Moved, "the numbers that were meant and deleted; or their groups")},
            problems={**malformed, 409: "workers run the route"},
        ),
        Endpoint(
            "GET",
            f"{path}/{{id}}",
            dead_letter,
            Role.READER,
            "One dead letter with its payload, headers and traceback",
            parameters=[*route_parameters(), Parameter("id", "the id of the dead letter", "path")],
            answers={200: json_content(DeadLetterDetail, "the dead letter")},
            problems=malformed,
        ),
    ]


def route_parameters() -> list[Parameter]:
    """Return the parameters of a path that name a route."""
    return [
        Parameter("key", "the key or the pattern of the route, percent-encoded", "path"),
        Parameter("group", "the group of the route", "path"),
    ]


def path_route(request: Request) -> SubscriptionName:
    """Return the route in the path of a request; raise Refusal if it cannot be one."""
    key, group = request.path_params["key"], request.path_params["group"]
    if not is_pattern(key) or not is_group(group):
        raise invalid("the path names no route: a key or a pattern, and a group")
    return key, group


def shown_groups(caller: Caller, groups: DeadGroups) -> DeadGroups:
    """Return groups as a caller may see them. A message may quote the payload."""
    shown = tuple(
        group
        if caller.allows_route(Role.READER, group.route)
        else msgspec.structs.replace(group, shapes=(), message="")
        for group in groups.groups
    )
    return DeadGroups(shown, groups.others)


def check_filter(where: DeadLetterFilter) -> None:
    """Raise Refusal if a condition is malformed."""
    if where.key is not None and not is_pattern(where.key):
        raise invalid("`key` is a key or a pattern")


def _shown(caller: Caller, summary: DeadLetterSummary) -> DeadLetterSummary:
    if caller.allows_route(Role.READER, summary.route):
        return summary
    return msgspec.structs.replace(summary, message="")


async def _allowed_routes(request: Request, site: Site) -> list[SubscriptionName]:
    """Return the routes that a request is about and that its caller may see."""
    caller, named = caller_of(request), request.query_params.get("route")
    route: SubscriptionName | None = None
    if named is not None:
        key, _, group = named.rpartition("/")
        if not is_pattern(key) or not is_group(group):
            raise invalid("`route` is KEY/GROUP, such as orders.created/billing")
        require(request, Role.VIEWER, key)
        route = key, group
        await require_subscription(site.source.backend, route, site.source.table.by_name)
    found = await routes_with_dead_letters(site.source.backend, route)
    return [one for one in found if caller.allows(Role.VIEWER, one[0])]


def _filter(request: Request) -> DeadLetterFilter:
    query = request.query_params
    found = DeadLetterFilter(
        kind=query.get("kind"),
        key=query.get("key"),
        message_id=query.get("message_id"),
        since=read_real(query.get("since"), "since", 0.0),
        until=read_real(query.get("until"), "until", math.inf),
        group=query.get("group"),
        revision=query.get("revision"),
    )
    check_filter(found)
    return found
