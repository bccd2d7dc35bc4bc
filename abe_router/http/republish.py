"""The endpoints that change a dead letter and publish it again, and the rules that the page shares."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.backend import DeadLetter, SubscriptionName
from abe_router.errors import BackendError, PayloadMalformed, PublishError
from abe_router.http.access import Caller, Role, require
from abe_router.http.dead_letters import path_route, route_parameters
from abe_router.http.endpoint import Endpoint, Parameter, json_content
from abe_router.http.problem import Refusal, invalid
from abe_router.http.publish_problem import draining, outcome_unknown, publish_problem
from abe_router.http.reading import read_body
from abe_router.http.site import Site, json_response
from abe_router.operations.republish import (
    WINDOW,
    Republication,
    RepublishDraft,
    Republished,
    draft_of,
    prepare_republication,
    republish,
)
from abe_router.routing.table import RouteTable

#: Why the option refuses, and what to do about it.
OFF = "the routes file does not allow it: set `http: {republish: true}`"


class RepublishRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is published in place of a dead letter. What is left out stays as it is in the dead letter.

    References of the draft in `payload` stand for masked values. With `purge`, the dead letter is deleted
    once the new message is accepted. `why` is the reason, which the audit shows.
    """

    payload: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    headers: Mapping[str, str] | None = None
    purge: bool = False
    why: str = ""


def is_allowed(table: RouteTable) -> bool:
    """Return whether the routes file allows to republish."""
    return table.http is not None and table.http.republish


async def find_to_republish(
    request: Request, site: Site, route: SubscriptionName, id: str
) -> tuple[DeadLetter, Caller]:
    """Return a dead letter that the caller may republish, and the caller.

    Raise Refusal without the option, without the role `reader` for the route, or without the role `publisher`
    for the key; raise UnknownDeadLetter.
    """
    if not is_allowed(site.source.table):
        raise Refusal(403, "disabled", "The routes file does not allow this", OFF)
    require(request, Role.READER, route[0])
    dead = await site.dead_letters.find(route, id)
    return dead, require(request, Role.PUBLISHER, dead.message.key)


async def publish_republication(
    site: Site, republication: Republication, request: Request, *, purge: bool, why: str
) -> Republished:
    """Publish in place of a dead letter; raise Refusal if that fails or is not allowed."""
    if site.source.readiness.draining:
        raise draining()
    pattern, _, group = republication.dead.route.rpartition("/")
    caller = require(request, Role.OPERATOR if purge else Role.READER, pattern)
    try:
        return await republish(
            site.source.backend, republication, author=caller.author(request), why=why, purge=purge
        )
    except BackendError as error:
        raise outcome_unknown(error, WINDOW, id=republication.message.id) from error
    finally:
        site.dead_letters.forget((pattern, group))


def routes(site: Site) -> list[Route]:
    """Return the endpoints."""

    async def republish_draft(request: Request) -> Response:
        dead, _ = await find_to_republish(request, site, path_route(request), request.path_params["id"])
        return json_response(await asyncio.to_thread(draft_of, dead, site.source.table))

    async def republish_dead_letter(request: Request) -> Response:
        asked = await read_body(request, RepublishRequest)
        dead, _ = await find_to_republish(request, site, path_route(request), request.path_params["id"])
        table = site.source.table
        draft = await asyncio.to_thread(draft_of, dead, table)
        body = bytes(asked.payload) or draft.body
        if not body:
            raise invalid("the payload of the dead letter is not JSON: give `payload`")
        headers = draft.headers if asked.headers is None else asked.headers
        try:
            republication = await asyncio.to_thread(prepare_republication, dead, table, body, headers)
        except (PublishError, PayloadMalformed) as error:
            raise publish_problem(error) from error
        found = await publish_republication(site, republication, request, purge=asked.purge, why=asked.why)
        return json_response(found, 200 if found.duplicate else 202)

    path = "/v1/dead-letters/{key}/{group}/{id}/republish"
    parameters = [*route_parameters(), Parameter("id", "the id of the dead letter", "path")]
    needs = "It needs `republish` in the routes file, and the role `reader` for the route too."
    unknown = "the route or the dead letter is unknown, or no route has its key"
    republished = json_content(Republished, "what came of it")
    return [
        Endpoint(
            "GET",
            path,
            republish_draft,
            Role.PUBLISHER,
            "A dead letter as it can be changed, with references in place of masked values",
            details=needs,
            parameters=parameters,
            answers={200: json_content(RepublishDraft, "the draft")},
            problems={400: "the request is malformed", 404: unknown},
        ),
        Endpoint(
            "POST",
            path,
            republish_dead_letter,
            Role.PUBLISHER,
            "Publish a changed dead letter as a new message, once, to every group of its key",
            details=f"{needs} With `purge`, it needs the role `operator` for the route.",
            parameters=parameters,
            body=json_content(RepublishRequest, "what is published"),
            answers={
                202: republished,
                200: json_content(Republished, "it was published before, and is not published again"),
            },
            problems={
                400: "the request or the payload is malformed",
                404: unknown,
                409: "a masked value has no place, or the backend remembers no ids",
                422: "the payload breaks its schema, as `errors` says, or has no valid id",
                503: "the router drains, or the backend fails: then repeat the same request",
            },
        ),
    ]
