"""The endpoints of what operators do and did: overrides, dropped routes, and the audit."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Role, require
from abe_router.http.dead_letters import path_route, route_parameters
from abe_router.http.endpoint import Content, Endpoint, Parameter, json_content, read_flag, read_whole
from abe_router.http.problem import invalid
from abe_router.http.reading import read_body
from abe_router.http.site import Site, json_response
from abe_router.messages.pattern import is_pattern
from abe_router.operations.audit import Act, acts
from abe_router.operations.overrides import DEFAULT_SECONDS, OverrideResult, limit, pause, resume
from abe_router.operations.subscriptions import drop
from abe_router.runtime.override import Override, read_overrides
from abe_router.text import MAX_RATE, MIN_RATE

#: Acts of one answer: by default, and at most.
DEFAULT_ACTS, MOST_ACTS = 100, 1_000
#: How long an answer waits for the workers to obey, in seconds.
OBEY_PATIENCE = 10.0


class OverrideRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An override of a route, or of all routes that match a pattern such as `orders.*/billing`.

    It holds for `seconds`. A `limit` needs a `rate` in messages a second. `why` is the reason, which is shown
    wherever the route is.
    """

    route: str
    action: Literal["pause", "limit"]
    why: str
    seconds: float = DEFAULT_SECONDS
    rate: float | None = None


def routes(site: Site) -> list[Route]:
    """Return the endpoints."""

    async def list_overrides(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        found = await read_overrides(site.source.backend)
        return json_response([each for each in found if caller.allows_route(Role.VIEWER, each.route)])

    async def override_route(request: Request) -> Response:
        asked = await read_body(request, OverrideRequest)
        key = asked.route.rpartition("/")[0]
        if not is_pattern(key):
            raise invalid("`route` is KEY/GROUP or a pattern of these, such as orders.*/billing")
        author = require(request, Role.OPERATOR, key).author(request)
        table, backend = site.source.table, site.source.backend
        options = {"author": author, "why": asked.why, "seconds": asked.seconds, "patience": OBEY_PATIENCE}
        if asked.action == "pause":
            if asked.rate is not None:
                raise invalid("a pause has no `rate`")
            return json_response(await pause(table, backend, asked.route, **options))
        if asked.rate is None or not MIN_RATE <= asked.rate <= MAX_RATE:
            raise invalid("a limit has a `rate` between one a year and a million a second")
        return json_response(await limit(table, backend, asked.route, asked.rate, **options))

    async def end_overrides(request: Request) -> Response:
        key, group = path_route(request)
        author = require(request, Role.OPERATOR, key).author(request)
        why = request.query_params.get("why", "")
        result = await resume(
            site.source.table,
            site.source.backend,
            f"{key}/{group}",
            author=author,
            why=why,
            patience=OBEY_PATIENCE,
        )
        return json_response(result)

    async def audit(request: Request) -> Response:
        require(request, Role.OPERATOR, "#")
        limit = read_whole(request.query_params.get("limit"), "limit", DEFAULT_ACTS, most=MOST_ACTS)
        return json_response(await acts(site.source.backend, limit=limit))

    async def drop_route(request: Request) -> Response:
        route = path_route(request)
        author = require(request, Role.ADMIN, route[0]).author(request)
        why = request.query_params.get("why", "")
        force = read_flag(request.query_params.get("force"), "force")
        await drop(site.source.table, site.source.backend, route, author=author, why=why, force=force)
        return Response(status_code=204)

    result = json_content(OverrideResult, "the routes, the workers that obey, and those that are silent")
    problems = {
        400: "the request is malformed",
        404: "no route matches",
        409: "the backend, the time or the reason does not permit it",
    }
    why = Parameter("why", "the reason, which the audit shows")
    return [
        Endpoint(
            "DELETE",
            "/v1/routes/{key}/{group}",
            drop_route,
            Role.ADMIN,
            "Delete the backlog and the dead letters of a removed route",
            parameters=[
                *route_parameters(),
                why,
                Parameter("force", "`true` deletes it under living workers too, and needs `why`", type=bool),
            ],
            answers={204: Content("the route is deleted")},
            problems={
                400: "`force` is neither `true` nor `false`",
                404: "the backend does not have the route",
                409: "the route is still in the file, or is served",
            },
        ),
        Endpoint(
            "GET",
            "/v1/overrides",
            list_overrides,
            Role.VIEWER,
            "The overrides in force",
            answers={200: json_content(list[Override], "the overrides, by route")},
        ),
        Endpoint(
            "POST",
            "/v1/overrides",
            override_route,
            Role.OPERATOR,
            "Pause a route, or limit its rate, for a time",
            body=json_content(OverrideRequest, "the override"),
            answers={200: result},
            problems=problems,
        ),
        Endpoint(
            "DELETE",
            "/v1/overrides/{key}/{group}",
            end_overrides,
            Role.OPERATOR,
            "End the pause and the limit of a route",
            parameters=[*route_parameters(), why],
            answers={200: result},
            problems=problems,
        ),
        Endpoint(
            "GET",
            "/v1/audit",
            audit,
            Role.OPERATOR,
            "What operators did, newest first",
            parameters=[Parameter("limit", f"{DEFAULT_ACTS} by default, at most {MOST_ACTS:,}", type=int)],
            answers={200: json_content(list[Act], "the acts")},
            problems={400: "the limit is malformed"},
        ),
    ]
