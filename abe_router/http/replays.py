"""The endpoints of replays: start one, watch it, stop it, continue it.

A replay runs in the background of the server. When the server ends, its record says `stopped`, and it can be
continued from anywhere.
"""

from __future__ import annotations

import logging

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Role, require
from abe_router.http.dead_letters import SelectRequest, path_route, route_parameters, shown_groups
from abe_router.http.endpoint import Endpoint, Parameter, json_content, path_number
from abe_router.http.problem import invalid
from abe_router.http.reading import read_body
from abe_router.http.site import Site, json_response
from abe_router.operations.dead_groups import DeadGroups, select
from abe_router.operations.errors import UnknownReplay
from abe_router.operations.replay import (
    Replay,
    ReplayRun,
    ReplayTaken,
    continue_replay,
    replays,
    start_replay,
    stop_replay,
)
from abe_router.operations.subscriptions import require_subscription

_log = logging.getLogger("abe_router.http")


class ReplayRequest(SelectRequest, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters of a route are replayed, and how.

    `rate` is in messages a second. The replay stops when `stop_after` messages died again. With `wait`, it is
    done when all messages have ended.
    """

    rate: float | None = None
    stop_after: int | None = None
    wait: bool = False


class WhyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Why something is done, as the audit shows it."""

    why: str = ""


def routes(site: Site) -> list[Route]:
    """Return the endpoints."""

    async def replay_dead_letters(request: Request) -> Response:
        route, asked = path_route(request), await read_body(request, ReplayRequest)
        caller = require(request, Role.OPERATOR, route[0])
        if asked.rate is not None and not 0 < asked.rate <= 1_000_000:
            raise invalid("`rate` is above 0 and at most a million a second")
        if asked.stop_after is not None and asked.stop_after < 1:
            raise invalid("`stop_after` is at least 1")
        backend = site.source.backend
        await require_subscription(backend, route, site.source.table.by_name)
        selection = await select(backend, route, ids=asked.ids, where=asked.where(), first=asked.first)
        if asked.dry_run:
            return json_response(shown_groups(caller, selection.groups))
        run = await start_replay(
            backend,
            selection,
            caller.author(request),
            why=asked.why,
            rate=asked.rate,
            stop_after=asked.stop_after,
            wait=asked.wait,
        )
        site.run(run_replay(run))
        return json_response(run.replay, 202)

    async def list_replays(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        found = await replays(site.source.backend)
        return json_response([each for each in found if caller.allows_route(Role.VIEWER, each.route)])

    async def replay(request: Request) -> Response:
        return json_response(await _known(request, Role.VIEWER))

    async def stop_running_replay(request: Request) -> Response:
        asked, replay = await read_body(request, WhyRequest), await _known(request, Role.OPERATOR)
        author = require(request, Role.OPERATOR).author(request)
        return json_response(await stop_replay(site.source.backend, replay.number, author, why=asked.why))

    async def continue_stopped_replay(request: Request) -> Response:
        replay = await _known(request, Role.OPERATOR)
        author = require(request, Role.OPERATOR).author(request)
        run = await continue_replay(site.source.backend, replay.number, author)
        site.run(run_replay(run))
        return json_response(run.replay, 202)

    async def _known(request: Request, role: Role) -> Replay:
        """Return the replay in the path of a request; raise UnknownReplay, or Refusal without the role."""
        number = path_number(request)
        found = next((each for each in await replays(site.source.backend) if each.number == number), None)
        if found is None or not require(request, Role.VIEWER).allows_route(Role.VIEWER, found.route):
            raise UnknownReplay(f"there is no replay {number}")
        require(request, role, found.name[0])
        return found

    number = [Parameter("number", "the number of the replay", "path", int)]
    record = json_content(Replay, "the record of the replay")
    unknown, refused = (
        "the route, the dead letter or the replay is unknown",
        "the backend or its state refuses it",
    )
    return [
        Endpoint(
            "POST",
            "/v1/dead-letters/{key}/{group}/replay",
            replay_dead_letters,
            Role.OPERATOR,
            "Send dead letters back to their own route",
            details="With `dry_run`, the answer has the groups of the dead letters, and nothing is moved.",
            parameters=route_parameters(),
            body=json_content(ReplayRequest, "which dead letters are replayed, and how"),
            answers={202: record, 200: json_content(DeadGroups, "the groups, of a dry run")},
            problems={400: "the request is malformed", 404: unknown, 409: refused},
        ),
        Endpoint(
            "GET",
            "/v1/replays",
            list_replays,
            Role.VIEWER,
            "All replays of the last 30 days, newest first",
            answers={200: json_content(list[Replay], "the records")},
        ),
        Endpoint(
            "GET",
            "/v1/replays/{number}",
            replay,
            Role.VIEWER,
            "One replay with its progress",
            parameters=number,
            answers={200: record},
            problems={404: unknown},
        ),
        Endpoint(
            "POST",
            "/v1/replays/{number}/stop",
            stop_running_replay,
            Role.OPERATOR,
            "Stop a running replay",
            parameters=number,
            body=json_content(WhyRequest, "the reason"),
            answers={200: record},
            problems={404: unknown, 409: refused},
        ),
        Endpoint(
            "POST",
            "/v1/replays/{number}/continue",
            continue_stopped_replay,
            Role.OPERATOR,
            "Continue a replay that was stopped or whose process is gone",
            parameters=number,
            answers={202: record},
            problems={404: unknown, 409: refused},
        ),
    ]


async def run_replay(run: ReplayRun) -> None:
    """Run a replay to its end. Its record says what becomes of it."""
    try:
        async for _ in run.run():
            pass
    except ReplayTaken as error:
        _log.info("replay %d: %s", run.replay.number, error)
    except BackendError as error:
        _log.error("replay %d can be continued: %s", run.replay.number, error)
