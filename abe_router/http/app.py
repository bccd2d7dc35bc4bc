"""The ASGI applications: the API with everything, and the probes alone for a second listener."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import AbeRouterError
from abe_router.http import (
    acts,
    dead_letters,
    edits,
    events,
    login,
    metrics,
    openapi,
    probes,
    publish,
    reading,
    replays,
    tail,
)
from abe_router.http.guard import Guard, on_http_error
from abe_router.http.problem import Refusal, problem_of
from abe_router.http.site import Site

#: The modules of the API; each returns its endpoints. `Endpoint` describes those under /v1.
ENDPOINTS: tuple[Callable[[Site], list[Route]], ...] = (
    login.routes,
    probes.health_routes,
    reading.routes,
    metrics.routes,
    dead_letters.routes,
    replays.routes,
    acts.routes,
    edits.routes,
    publish.routes,
    tail.routes,
    events.routes,
    openapi.routes,
)


def make_app(site: Site) -> Starlette:
    """Return the API, the probes and the metrics, for callers that have a token or a session."""
    routes = [*probes.probe_routes(site), *(route for endpoints in ENDPOINTS for route in endpoints(site))]
    return _application(routes, Middleware(Guard, security=site.security))


def make_probes_app(site: Site) -> Starlette:
    """Return the probes and the metrics alone, for callers without a token."""
    routes = [*probes.probe_routes(site), metrics.metrics_route(site, public=True)]
    return _application(routes, Middleware(Guard, security=None))


def _application(routes: list[Route], guard: Middleware) -> Starlette:
    application = Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={
            HTTPException: on_http_error,
            Refusal: _on_refused,
            AbeRouterError: _on_error,
        },
    )
    application.router.redirect_slashes = False
    return application


async def _on_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AbeRouterError)
    return problem_of(error)
