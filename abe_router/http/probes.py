"""The probes of an orchestrator, and the health of every part for people.

The probes answer from memory. An unreachable backend or a blocked handler changes readiness, and never
whether the process is alive: a restart would mend neither.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from abe_router.http.access import Role, require
from abe_router.http.site import Site, json_response
from abe_router.observe.metrics import WorkersState


class RouterHealth(msgspec.Struct, frozen=True):
    """Why the router is ready or not, from memory.

    `revision` is that of the routes file. `backend_up` is None where the consumers themselves know it, and
    `workers` is None without a supervisor.
    """

    ready: bool
    started: bool
    draining: bool
    reasons: tuple[str, ...]
    revision: str
    backend_up: bool | None
    workers: WorkersState | None


def probe_routes(site: Site) -> list[Route]:
    """Return the endpoints that need no token."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def startupz(_: Request) -> Response:
        started = site.source.readiness.started
        return PlainTextResponse("ok\n" if started else "starting\n", 200 if started else 503)

    async def readyz(_: Request) -> Response:
        readiness = site.source.readiness
        if readiness.ready:
            return PlainTextResponse("ok\n")
        why = "draining" if readiness.draining else "; ".join(readiness.reasons) or "starting"
        return PlainTextResponse(f"{why}\n", 503)

    return [Route("/livez", livez), Route("/startupz", startupz), Route("/readyz", readyz)]


def health_routes(site: Site) -> list[Route]:
    """Return the endpoint that says why the router is not ready, with the state of each part."""

    async def healthz(request: Request) -> Response:
        require(request, Role.VIEWER)
        source, readiness = site.source, site.source.readiness
        health = RouterHealth(
            ready=readiness.ready,
            started=readiness.started,
            draining=readiness.draining,
            reasons=readiness.reasons,
            revision=source.table.revision,
            backend_up=source.backend_up,
            workers=source.workers,
        )
        return json_response(health, 200 if readiness.ready else 503)

    return [Route("/healthz", healthz)]
