"""The endpoints that show the router: status, routes, workers, explanations and plans."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Role, require
from abe_router.http.body import unsupported
from abe_router.http.endpoint import Endpoint, json_content
from abe_router.http.problem import Refusal, invalid
from abe_router.http.site import Site, json_response
from abe_router.operations.asyncapi import asyncapi_document
from abe_router.operations.explain import Explanation, explain
from abe_router.operations.overrides import known_overrides
from abe_router.operations.plan import Plan, plan_reload
from abe_router.operations.routes import RouteDescription, describe_routes
from abe_router.operations.status import Status
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.runtime.edit_record import edit_in_force, load_edit, read_edits
from abe_router.runtime.failures import FailedAttempt
from abe_router.runtime.heartbeat import WorkerReport, read_workers
from abe_router.runtime.override import Override


class ExplainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for an explanation: a key, a payload as JSON, and headers."""

    key: str
    payload: msgspec.Raw
    headers: Mapping[str, str] = {}


class RouteView(msgspec.Struct, frozen=True):
    """A route: its options, or null if the file does not have it, and its state, or null if it never ran."""

    route: str
    options: RouteDescription | None
    state: SubscriptionState | None


def routes(site: Site) -> list[Route]:
    """Return the endpoints."""
    documents: dict[str, Any] = {}  # the AsyncAPI document, and the table that it is of

    async def overrides() -> Sequence[Override]:
        return await known_overrides(site.source.backend) or ()

    async def status(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        found = await site.status.get()
        if caller.is_limited:
            shown = tuple(state for state in found.routes if caller.allows_route(Role.VIEWER, state.route))
            found = msgspec.structs.replace(found, routes=shown, workers={})
        return json_response(found)

    async def list_routes(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        described = describe_routes(site.source.table, await overrides())
        return json_response([one for one in described if caller.allows(Role.VIEWER, one.key)])

    async def one_route(request: Request) -> Response:
        key, group = request.path_params["key"], request.path_params["group"]
        require(request, Role.VIEWER, key)
        name = f"{key}/{group}"
        described = [d for d in describe_routes(site.source.table, await overrides()) if d.route == name]
        state = next((one for one in (await site.status.get()).routes if one.route == name), None)
        if state is None and not described:
            raise Refusal(404, "not-found", "Not found", f"there is no route `{name}`")
        return json_response(RouteView(name, next(iter(described), None), state))

    async def route_failures(request: Request) -> Response:
        key, group = request.path_params["key"], request.path_params["group"]
        require(request, Role.READER, key)
        return json_response((await site.failures.get()).get(f"{key}/{group}", ()))

    async def asyncapi(request: Request) -> Response:
        caller, table = require(request, Role.VIEWER), site.source.table
        if caller.is_limited:
            shows = partial(caller.allows, Role.VIEWER)
            return json_response(await asyncio.to_thread(asyncapi_document, table, shows=shows))
        if documents.get("of") is not table:
            documents.update({"document": await asyncio.to_thread(asyncapi_document, table), "of": table})
        return json_response(documents["document"])

    async def workers(request: Request) -> Response:
        require(request, Role.VIEWER, "#")
        return json_response(await read_workers(site.source.backend))

    async def plan(request: Request) -> Response:
        require(request, Role.VIEWER, "#")
        table, backend = site.source.table, site.source.backend
        running = {worker.revision for worker in (await read_workers(backend)).values() if worker}
        former = table
        if table.path is not None and table.revision not in running:
            edit = edit_in_force(await read_edits(backend), table.path, running)
            former = (edit and await load_edit(backend, edit, table.backend, table.path)) or table
        return json_response(await asyncio.to_thread(plan_reload, former, table))

    async def explain_message(request: Request) -> Response:
        asked = await read_body(request, ExplainRequest)
        require(request, Role.VIEWER, asked.key)
        table = site.source.table
        run = partial(
            explain,
            table,
            asked.key,
            bytes(asked.payload),
            headers=asked.headers,
            overrides=await overrides(),
        )
        return json_response(await asyncio.to_thread(run))  # a payload may have many violations

    return [
        Endpoint(
            "GET",
            "/v1/status",
            status,
            Role.VIEWER,
            "The state of every route and worker",
            answers={200: json_content(Status, "the state, at most two seconds old")},
        ),
        Endpoint(
            "GET",
            "/v1/routes",
            list_routes,
            Role.VIEWER,
            "The routes of the file with their options",
            answers={200: json_content(list[RouteDescription], "the routes, in the order of the file")},
        ),
        Endpoint(
            "GET",
            "/v1/routes/{key}/{group}",
            one_route,
            Role.VIEWER,
            "One route with its options and its state",
            answers={200: json_content(RouteView, "the route")},
            problems={404: "neither the file nor the backend knows the route"},
        ),
        Endpoint(
            "GET",
            "/v1/routes/{key}/{group}/failures",
            route_failures,
            Role.READER,
            "The newest failed attempts whose messages wait for a retry, with tracebacks",
            details="Each worker remembers three of a route, and the last 30 routes that failed.",
            answers={200: json_content(list[FailedAttempt], "the attempts, newest first")},
        ),
        Endpoint(
            "GET",
            "/v1/asyncapi.json",
            asyncapi,
            Role.VIEWER,
            "The AsyncAPI 3.1 document of the keys, the messages and the groups",
            answers={200: json_content(dict[str, Any], "the document of the keys that the caller may see")},
        ),
        Endpoint(
            "GET",
            "/v1/workers",
            workers,
            Role.VIEWER,
            "The last report of every worker",
            answers={200: json_content(dict[str, WorkerReport | None], "the reports, by worker")},
        ),
        Endpoint(
            "GET",
            "/v1/plan",
            plan,
            Role.VIEWER,
            "What a reload from the edit that the workers run to the routes file does",
            answers={200: json_content(Plan, "what becomes of routes, keys and options of the file")},
        ),
        Endpoint(
            "POST",
            "/v1/explain",
            explain_message,
            Role.VIEWER,
            "What becomes of a message, without publishing it",
            body=json_content(ExplainRequest, "the key, the payload and the headers of the message"),
            answers={200: json_content(Explanation, "the explanation")},
            problems={400: "the body is malformed", 415: "the body is not JSON"},
        ),
    ]


async def read_body(request: Request, kind: type[Any]) -> Any:
    """Return the body of a request as a value of `kind`; raise Refusal if it does not have its form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise unsupported("send application/json")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(str(error)) from None
